"""Registers plugins before a network or plan needs them: TensorRT's own, and those of other libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, OptionError, decoding
from trtbuild.files import file_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["load_plugins", "plugin_records"]

# TensorRT's registry belongs to the process, and refuses a library whose plugins are registered already.
_loaded: set[tuple[str, str]] = set()


def load_plugins(tensorrt: TensorRT, logger: Any, log: Log, libraries: Sequence[Path]) -> None:
    """Register TensorRT's own plugins and those of `libraries`, each once per process.

    A library runs with all rights of this process.

    Args:
        tensorrt: the installed version.
        logger: logger of the builder or runtime.
        log: where the logger writes.
        libraries: shared libraries that register plugins.

    Raises:
        InputError: a file cannot be read.
        OptionError: TensorRT does not load a library; the message has its reason.
    """
    tensorrt.module.init_libnvinfer_plugins(logger, "")
    for path in libraries:
        with decoding(InputError, f"the plugin library '{path}' cannot be read"), path.open("rb"):
            place = str(path.resolve())
        known = (tensorrt.module.__name__, place)
        if known in _loaded:
            continue
        registry = tensorrt.module.get_plugin_registry()
        if registry is None or registry.load_library(place) is None:
            raise OptionError(
                f"{tensorrt} does not load the plugin library '{path}': {log.reason()}. {_advice(path)}"
            )
        _loaded.add(known)


def _advice(library: Path) -> str:
    """Advice on a library that does not load; the system's own message is unclear."""
    ours, its = _machine(Path(sys.executable)), _machine(library)
    if ours is not None and its is None:
        return "It is not a shared library of this system."
    if ours != its:
        return "It is built for another processor than this machine's."
    return "Build it against this TensorRT, and make it register each plugin once."


def _machine(path: Path) -> bytes | None:
    """Word size, byte order and processor of an ELF file; None for other files."""
    with path.open("rb") as file:
        head = file.read(20)
    return head[4:6] + head[18:20] if head.startswith(b"\x7fELF") else None


def plugin_records(libraries: Sequence[Path]) -> list[dict[str, str]]:
    """Return name and digest of each library, for a manifest.

    Raises:
        InputError: a library cannot be read.
    """
    records = []
    for path in libraries:
        with decoding(InputError, f"the plugin library '{path}' cannot be read"):
            records.append({"file": path.name, "digest": file_digest(path)})
    return records
