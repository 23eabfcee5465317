"""Writes and reads plans in parts, so that a large plan is not in memory twice.

The bindings print and forget exceptions of a callback, and a build continues after a failed write. So
the cause is noted here and raised after TensorRT has returned.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, OutputError, decoding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["deserialize", "write_through"]

LARGE = 2**28
"""Plans from this size in bytes are read in parts; for smaller ones a copy is faster than many callbacks."""

_PART = 2**26


def write_through(tensorrt: TensorRT, path: Path, build: Callable[[Any], bool]) -> bool:
    """Let `build` write a plan into the file at `path`, part by part.

    Args:
        tensorrt: the installed version; it has ``IStreamWriter``.
        path: the file; removed if there is no plan.
        build: takes the writer, and returns whether there is a plan.

    Returns:
        What `build` returns.

    Raises:
        OutputError: a part could not be written.
    """
    failed: list[OSError] = []

    class Writer(tensorrt.module.IStreamWriter):  # type: ignore[misc, name-defined]
        def __init__(self, stream: BinaryIO) -> None:
            super().__init__()
            self._stream = stream

        def write(self, data: bytes) -> int:
            """Return the number of bytes written; 0 if the write failed."""
            try:
                return self._stream.write(data)
            except OSError as error:
                failed.append(error)
                return 0

    done = False
    try:
        with path.open("wb") as stream:
            done = build(Writer(stream))
    except OSError as error:
        failed.append(error)
    finally:
        if failed or not done:
            path.unlink(missing_ok=True)
    if failed:
        raise OutputError(f"the plan cannot be written: {failed[0].strerror}.") from failed[0]
    return done


def deserialize(tensorrt: TensorRT, runtime: Any, path: Path) -> Any:
    """Return the engine of a plan; None if TensorRT refuses it.

    Args:
        tensorrt: the installed version.
        runtime: its runtime.
        path: the plan.

    Raises:
        InputError: the file cannot be read.
    """
    with decoding(InputError, f"the plan '{path}' cannot be read"):
        is_large = path.stat().st_size >= LARGE
        stream = path.open("rb")
    with stream:
        if not is_large or not hasattr(tensorrt.module, "IStreamReaderV2"):
            with decoding(InputError, f"the plan '{path}' cannot be read"):
                plan = stream.read()
            return runtime.deserialize_cuda_engine(plan)
        failed: list[OSError] = []
        engine = runtime.deserialize_cuda_engine(_make_reader(tensorrt, stream, failed))
    if failed:
        raise InputError(f"the plan '{path}' cannot be read: {failed[0].strerror}.") from failed[0]
    return engine


def _make_reader(tensorrt: TensorRT, stream: BinaryIO, failed: list[OSError]) -> Any:
    places = {"SET": os.SEEK_SET, "CUR": os.SEEK_CUR, "END": os.SEEK_END}

    class Reader(tensorrt.module.IStreamReaderV2):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()

        def read(self, num_bytes: int, cuda_stream: int) -> bytes:
            """Return at most `num_bytes` bytes; an empty result ends the reading."""
            del cuda_stream
            try:
                return stream.read(min(num_bytes, _PART))
            except OSError as error:
                failed.append(error)
                return b""

        def seek(self, offset: int, where: Any) -> bool:
            """Go to `offset`; return whether that worked."""
            try:
                stream.seek(offset, places[where.name])
            except OSError as error:
                failed.append(error)
                return False
            return True

    return Reader()
