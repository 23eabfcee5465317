"""Arrays in ``.npz`` and ``.npy`` files: what they hold is known from their headers, and read when needed."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError, decoding
from trtbuild.machine import memory_bytes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["StoredArray", "stored_arrays"]


@dataclass(frozen=True)
class StoredArray:
    """An array that lies in a file.

    Attributes:
        path: of the file.
        member: name within an ``.npz``; None for an ``.npy``.
        shape: as its header says.
        dtype: as its header says.
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
        """Return the array: of an ``.npz`` in memory, of an ``.npy`` mapped. Nothing is ever unpickled.

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
                # no file can be mapped that holds no value
                found: np.ndarray = np.load(
                    self.path, mmap_mode="r" if size else None, allow_pickle=False
                )
                return found
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[self.member]  # type: ignore[no-any-return]


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """Return name -> array of an ``.npz`` or ``.npy`` file; a lone array has the name of the file's stem.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.exists():
        raise DataError(f"the data '{path}' does not exist.")
    with _reading(path):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                return {path.stem: _header(path, None, stream, path.stat().st_size)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    name = entry.filename.removesuffix(".npy")
                    if name in found:
                        text = f"'{path}' holds two arrays of the name '{name}'; give each its own."
                        raise DataError(text)
                    with archive.open(entry) as stream:
                        found[name] = _header(path, name, stream, entry.file_size)
            return found


def _reading(path: Path) -> AbstractContextManager[None]:
    failure = f"cannot read the data '{path}': it is damaged, or holds Python objects"
    return decoding(DataError, failure, "Write it again with numpy.savez.")


def _header(path: Path, member: str | None, stream: IO[bytes], size: int) -> StoredArray:
    """What the header in `stream` says, unless it is more than the `size` bytes that are there."""
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"the header says {shape} of {dtype}, and {size} bytes are there")
    return StoredArray(path, member, shape, dtype)
