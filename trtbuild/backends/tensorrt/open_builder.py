"""An open builder of NVIDIA's library: all library objects of a build in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import MissingError
from trtbuild.runtime.tensorrt.logger import Log, explained, made, make_logger
from trtbuild.runtime.tensorrt.plugins import load_plugins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["OpenBuilder"]


@dataclass(frozen=True, eq=False)
class OpenBuilder:
    """The library objects of a build.

    Attributes:
        tensorrt: the installed version.
        native: its ``Builder``.
        config: the ``IBuilderConfig`` of the build.
        logger: the ``ILogger`` that the library writes to.
        log: the lines it wrote, which explain errors.
    """

    tensorrt: TensorRT
    native: Any
    config: Any
    logger: Any
    log: Log

    @classmethod
    def start(
        cls,
        tensorrt: TensorRT,
        plugins: Sequence[Path] = (),
        remedy: str = "Run `trtbuild doctor`.",
    ) -> OpenBuilder:
        """Return a builder with the plugins loaded and an empty configuration.

        Args:
            tensorrt: the installed version.
            plugins: shared libraries of plugins.
            remedy: what to do if the library does not start, as a sentence.

        Raises:
            MissingError: the library does not start.
            InputError: a plugin library cannot be read.
            OptionError: a plugin library does not load.
        """
        log = Log()
        logger = make_logger(tensorrt, log)
        with explained(log, f"{tensorrt} does not start", MissingError, remedy):
            native = tensorrt.module.Builder(logger)
        load_plugins(tensorrt, logger, log, plugins)
        config = made(native.create_builder_config(), "builder configuration", log)
        return cls(tensorrt, native, config, logger, log)
