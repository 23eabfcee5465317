"""The timing cache: kernel timings of earlier builds, loaded, merged, pinned and saved."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, decoding
from trtbuild.files import file_digest, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.logger import Log

__all__ = ["load_timing_cache", "save_timing_cache"]

_log = logging.getLogger(__name__)

# For a file that it cannot read TensorRT returns an empty cache, and says so only in its log.
_UNREAD = re.compile(r"timing cache (will|can)\s?not be used|failed to deserialize", re.IGNORECASE)


def load_timing_cache(config: Any, options: TensorRTOptions, log: Log) -> Any:
    """Set a timing cache on the configuration; a new one if the file does not exist yet.

    Args:
        config: the builder configuration.
        options: options with the file, and the digest that it must have.
        log: TensorRT's log, which explains failures.

    Returns:
        The cache, which must live until the build has ended.

    Raises:
        InputError: the file is not the pinned one, is damaged, or belongs to another TensorRT or GPU.
    """
    path = options.timing_cache
    if path is None:
        return None
    if options.lock:
        _check_digest(path, options.lock)
    with decoding(InputError, f"the timing cache '{path}' cannot be read"):
        content = path.read_bytes() if path.exists() else b""
    mark = log.mark
    cache = config.create_timing_cache(content)
    unread = _unread(log.since(mark)) if content else ""
    # Never with ignore_mismatch: timings of another GPU would choose the wrong kernels.
    if cache is None or unread or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"the timing cache '{path}' cannot be used here: {unread or log.since(mark).reason()}. It "
            "belongs to another TensorRT or GPU, or is damaged; name another file, and a new one is made."
        )
    return cache


def _unread(log: Log) -> str:
    """TensorRT's log lines about a file that it cannot read and replaces by an empty cache; else empty."""
    said = [text.rstrip(". ") for text in log.texts("WARNING", "ERROR") if _UNREAD.search(text)]
    return "; ".join(said)


def save_timing_cache(config: Any, options: TensorRTOptions, log: Log) -> dict[str, Any]:
    """Save the timings of the build, merged with those that another build has saved meanwhile.

    A file that appeared meanwhile and cannot be merged stays as it is, with a warning.

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
        if path.is_file() and not _merge(config, cache, path.read_bytes(), log):
            _log.warning(
                "'%s' is not written: the file there is not a timing cache of this TensorRT and GPU.",
                path,
            )
            return {}
        content = cache.serialize()
        if content is not None:
            write_bytes(path, bytes(content))
    return {"file": path.name, "digest": file_digest(path), "locked": options.lock is not None}


def _merge(config: Any, cache: Any, content: bytes, log: Log) -> bool:
    """Add the entries of a file that another build has saved meanwhile; return False if they do not fit."""
    mark = log.mark
    written = config.create_timing_cache(content)
    if written is None or _unread(log.since(mark)):
        return False
    return bool(cache.combine(written, ignore_mismatch=False))


def _check_digest(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise InputError(f"--lock pins the timing cache '{path}', which does not exist.")
    with decoding(InputError, f"the timing cache '{path}' cannot be read"):
        found = file_digest(path)
    if found != wanted:
        raise InputError(
            f"the timing cache '{path}' has the digest {found}, but --lock requires {wanted}. Take the "
            "pinned file, or build without --lock."
        )
