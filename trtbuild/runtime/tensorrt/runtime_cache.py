"""The runtime cache: kernels that TensorRT for RTX compiles when a plan first runs, saved in a file.

A plan for RTX holds no GPU's kernels; they are compiled on the machine that runs it. The file hands them to
the next process. It belongs to one version, driver and GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, decoding
from trtbuild.files import write_bytes
from trtbuild.runtime.tensorrt.logger import made

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.runtime.tensorrt.logger import Log

__all__ = ["RuntimeCache"]


class RuntimeCache:
    """The runtime cache of one engine.

    Args:
        native: the engine, of TensorRT for RTX.
        path: the file; created if it does not exist.
        log: TensorRT's log, which explains failures.

    Raises:
        InputError: the file cannot be read, is damaged, or belongs to another version, driver or GPU.
    """

    def __init__(self, native: Any, path: Path, log: Log) -> None:
        self._path = path
        self._config = made(native.create_runtime_config(), "runtime configuration", log)
        self._cache = made(self._config.create_runtime_cache(), "runtime cache", log)
        with decoding(InputError, f"the runtime cache '{path}' cannot be read"):
            content = path.read_bytes() if path.exists() else b""
        if content and not self._cache.deserialize(content):
            raise InputError(
                f"the runtime cache '{path}' cannot be used here: {log.reason()}. It belongs to another "
                "version, driver or GPU, or is damaged; name another file, and a new one is made."
            )
        self._before = content
        if not self._config.set_runtime_cache(self._cache):
            raise InputError(f"TensorRT refuses the runtime cache '{path}': {log.reason()}.")

    def make_context(self, native: Any) -> Any:
        """Return an execution context that uses the cache; None if TensorRT makes none."""
        return native.create_execution_context(self._config)

    def save(self) -> None:
        """Save the cache, if anything was compiled since.

        Raises:
            OutputError: the file cannot be written.
        """
        content = self._cache.serialize()
        if content is not None and bytes(content) != self._before:
            self._before = bytes(content)
            write_bytes(self._path, self._before)
