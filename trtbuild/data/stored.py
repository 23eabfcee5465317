"""Arrays in ``.npz`` and ``.npy`` files: headers are read first, contents when needed."""

from __future__ import annotations

import math
import mmap
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from trtbuild.errors import DataError, decoding
from trtbuild.machine import memory_bytes
from trtbuild.model.file_kinds import check_was_fetched

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["StoredArray", "check_whole", "row_of", "stored_arrays"]

# Larger ``.npy`` files are mapped, not read into memory: worth the risk that the file changes meanwhile.
_MAPPED_FROM = 256_000_000


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Attributes:
        path: path of the file.
        member: name within an ``.npz``; None for an ``.npy``.
        shape: from its header.
        dtype: from its header.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def read(self) -> np.ndarray:
        """Return the array: mapped for a large ``.npy``, else in memory. Nothing is ever unpickled.

        Raises:
            DataError: it is damaged, holds Python objects, or is larger than memory.
        """
        size = math.prod(self.shape) * self.dtype.itemsize
        if self.member is not None and size > memory_bytes():
            raise DataError(
                f"the array '{self.member}' of '{self.path}' takes {size / 1e9:.0f} GB, more than this "
                "machine has; write it as an .npy file, or fewer samples."
            )
        with _reading(self.path):
            if self.member is None:
                mode: Literal["r"] | None = "r" if size > _MAPPED_FROM else None
                found: np.ndarray = np.load(self.path, mmap_mode=mode, allow_pickle=False)
                return found
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[self.member]  # type: ignore[no-any-return]


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """Return name -> array of an ``.npz`` or ``.npy`` file; a single array is named after the file's stem.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.exists():
        raise DataError(f"the data '{path}' does not exist.")
    with _reading(path):
        if not zipfile.is_zipfile(path):
            check_was_fetched(path, "an array file", DataError)
            with path.open("rb") as stream:
                return {path.stem: _header(path, None, stream, path.stat().st_size)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    name = entry.filename.removesuffix(".npy")
                    if name in found:
                        text = (
                            f"'{path}' holds two arrays with the name '{name}'; give each its own."
                        )
                        raise DataError(text)
                    with archive.open(entry) as stream:
                        found[name] = _header(path, name, stream, entry.file_size)
            return found


def row_of(array: np.ndarray, axis: int, row: int) -> np.ndarray:
    """Return one row of an array; a contiguous row of a mapped array is read from its file.

    The system kills a process that accesses a mapped file beyond its end; a read reports it instead.

    Raises:
        DataError: the array is mapped, and its file has become shorter.
    """
    if not isinstance(array, np.memmap):
        return np.asarray(array[(slice(None),) * axis + (row,)])
    check_whole(array)
    is_whole_file = isinstance(array.base, mmap.mmap) and array.mode == "r"
    file = array.filename
    if axis or file is None or not is_whole_file or not array.flags.c_contiguous:
        return np.asarray(array[(slice(None),) * axis + (row,)])
    count = math.prod(array.shape[1:])
    with _reading(file):
        place = array.offset + row * count * array.itemsize
        found: np.ndarray = np.fromfile(file, array.dtype, count, offset=place)
    if found.size != count:
        raise _cut_short(array)
    values: np.ndarray = found.reshape(array.shape[1:])
    return values


def check_whole(array: np.ndarray) -> None:
    """Check that the file of a mapped array is still long enough: access beyond its end kills the process.

    Raises:
        DataError: the file has become shorter.
    """
    if not isinstance(array, np.memmap):
        return
    region = getattr(array, "_mmap", None)
    # size of the file that was mapped, even if another file has its name now
    if isinstance(region, mmap.mmap) and region.size() < array.offset + array.nbytes:
        raise _cut_short(array)


def _cut_short(array: np.memmap[Any, Any]) -> DataError:
    return DataError(
        f"the data '{array.filename}' was truncated while it was read; write it again, and do not change "
        "it meanwhile."
    )


def _reading(path: Path | str) -> AbstractContextManager[None]:
    failure = f"cannot read the data '{path}': it is damaged, or holds Python objects"
    return decoding(DataError, failure, "Write it again with numpy.savez.")


def _header(path: Path, member: str | None, stream: IO[bytes], size: int) -> StoredArray:
    """Parse the header in `stream`; refuse one that announces more than the `size` bytes that exist."""
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"the header says {shape} of {dtype}, but there are only {size} bytes")
    return StoredArray(path, member, shape, dtype)
