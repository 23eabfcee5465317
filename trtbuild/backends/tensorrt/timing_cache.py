"""The timing cache: kernel timings of earlier builds, loaded, merged, pinned and written back whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, decoding
from trtbuild.files import file_digest, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.logger import Log

__all__ = ["load_timing_cache", "save_timing_cache"]


def load_timing_cache(config: Any, options: TensorRTOptions, log: Log) -> Any:
    """Set a timing cache on the configuration; a new one where the file does not exist yet.

    Args:
        config: the builder configuration.
        options: with the file, and the digest that it must have.
        log: where TensorRT explains itself.

    Returns:
        The cache, which must live until the build has ended.

    Raises:
        InputError: the file is not the pinned one, is damaged, or of another TensorRT or GPU.
    """
    path = options.timing_cache
    if path is None:
        return None
    if options.lock:
        _check_digest(path, options.lock)
    with decoding(InputError, f"the timing cache '{path}' cannot be read"):
        content = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(content)
    # Never with ignore_mismatch: timings of another GPU would choose kernels for this one.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"the timing cache '{path}' cannot be used here: {log.reason()}. It belongs to another TensorRT "
            "or GPU, or is damaged; name another file, and a new one is made."
        )
    return cache


def save_timing_cache(config: Any, options: TensorRTOptions) -> dict[str, Any]:
    """Write what the build has learned, merged with what another build wrote meanwhile.

    Returns:
        File name and digest for the manifest; empty without a timing cache.

    Raises:
        OutputError: the file cannot be written.
    """
    path = options.timing_cache
    cache = config.get_timing_cache() if path is not None else None
    if path is None or cache is None:
        return {}
    if options.lock is None:
        if path.is_file():
            _merge(config, cache, path.read_bytes())
        content = cache.serialize()
        if content is not None:
            write_bytes(path, bytes(content))
    return {"file": path.name, "digest": file_digest(path), "locked": options.lock is not None}


def _merge(config: Any, cache: Any, content: bytes) -> None:
    """Take over the entries of a file. One that does not fit is replaced: it cannot help this GPU."""
    written = config.create_timing_cache(content)
    if written is not None:
        cache.combine(written, ignore_mismatch=False)


def _check_digest(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise InputError(f"--lock pins the timing cache '{path}', which is not there.")
    with decoding(InputError, f"the timing cache '{path}' cannot be read"):
        found = file_digest(path)
    if found != wanted:
        raise InputError(
            f"the timing cache '{path}' has the digest {found}, and --lock wants {wanted}. Take the pinned "
            "file, or build without --lock."
        )
