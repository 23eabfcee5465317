"""Samples from ``.npz`` and ``.npy`` files."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

import numpy as np

from trtbuild.data.feeds import as_feeds
from trtbuild.data.samples import Sample, Source, array_key
from trtbuild.errors import DataError, decoding
from trtbuild.machine import memory_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["ArraySource", "load_arrays"]

# Kinds of dtypes that a network may take; numbers of ml_dtypes have the kind 'V'.
_NUMBERS = frozenset("biufcV")


@dataclass(frozen=True)
class ArraySource(Source):
    """Rows of one array per input.

    Attributes:
        path: the file, for messages.
        arrays: input name -> array whose axis 0 runs over the samples.
        inputs: what the network takes.
        preprocess: applied to every row of a single image input; None passes rows as they are.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    inputs: Sequence[TensorSpec]
    preprocess: Preprocess | None = None

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return str(self.path)

    @classmethod
    def read(
        cls, path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None
    ) -> ArraySource:
        """Open `path` and find the array of each input: by the input's name, or the only one there is.

        Raises:
            DataError: unreadable, empty, no array for an input, or arrays of different lengths.
        """
        stored = load_arrays(path)
        arrays = _arrays_for_inputs(path, stored, inputs, preprocess)
        for name, array in arrays.items():
            if array.dtype.kind not in _NUMBERS or not array.ndim:
                raise DataError(
                    f"the array for the input '{name}' in '{path}' is {array.dtype} of the shape "
                    f"{array.shape}; it must hold numbers, and its first axis runs over the samples."
                )
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the arrays of '{path}' differ in length: {lengths}.")
        if not all(lengths.values()):
            raise DataError(f"'{path}' holds no sample: its arrays have length 0.")
        return cls(path, arrays, inputs, preprocess)

    def __reduce__(self) -> tuple[object, ...]:
        # another process reads the file itself; the arrays are not sent
        return ArraySource.read, (self.path, self.inputs, self.preprocess)

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(next(iter(self.arrays.values())))):
            rows = {name: array[index] for name, array in self.arrays.items()}
            name = f"{self.path.name}[{index}]"
            load = partial(as_feeds, rows, self.inputs, self.preprocess, name)
            yield Sample(name, array_key(rows.values()), load)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` or ``.npy`` file; a lone array has the name of the file's stem.

    Nothing is ever unpickled.

    Raises:
        DataError: the file is missing, damaged, or holds Python objects.
    """
    if not path.exists():
        raise DataError(f"the data '{path}' does not exist.")
    failure = f"cannot read the data '{path}': it is damaged, or holds Python objects"
    with decoding(DataError, failure, "Write it again with numpy.savez."):
        if zipfile.is_zipfile(path):
            return _load_archive(path)
        np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # a file shorter than its header says is refused
        loaded: np.ndarray = np.load(path, allow_pickle=False)
        return {path.stem: loaded}


def _load_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``, none of which takes more memory than its header and the archive agree on."""
    with np.load(path, allow_pickle=False) as loaded:
        sizes = {entry.filename: entry.file_size for entry in loaded.zip.infolist()}
        if sum(sizes.values()) > memory_bytes():
            raise DataError(
                f"the arrays of '{path}' take {sum(sizes.values()) / 1e9:.0f} GB, more than this machine "
                "has; write each as an .npy file, or fewer samples."
            )
        for name, size in sizes.items():
            with loaded.zip.open(name) as stream:
                _check_claim(stream, size)
        return {name: loaded[name] for name in loaded.files}


def _check_claim(stream: IO[bytes], size: int) -> None:
    """Check that the array in `stream` is no larger than the `size` bytes that are there."""
    version = np.lib.format.read_magic(stream)
    if version > (2, 0):  # names of fields in UTF-8, which no array of numbers has
        return
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"the header says {shape} of {dtype}, and {size} bytes are there")


def _arrays_for_inputs(
    path: Path,
    stored: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
) -> dict[str, np.ndarray]:
    wanted = [spec.name for spec in inputs]
    if all(name in stored for name in wanted):
        return {name: stored[name] for name in wanted}
    if len(wanted) == 1:
        name = _only_array(stored, preprocess)
        if name is not None:
            return {wanted[0]: stored[name]}
    have = ", ".join(f"'{name}' {array.shape}" for name, array in stored.items()) or "none"
    missing = next(name for name in wanted if name not in stored)
    raise DataError(
        f"'{path}' has no array for the input '{missing}'; it holds {have}. "
        "Name the arrays after the inputs, or set 'array' in the preprocessing."
    )


def _only_array(stored: Mapping[str, np.ndarray], preprocess: Preprocess | None) -> str | None:
    if preprocess is not None and preprocess.array is not None:
        return preprocess.array if preprocess.array in stored else None
    if len(stored) == 1:
        return next(iter(stored))
    # labels, indices and class names are vectors; samples are not
    with_rows = [name for name, array in stored.items() if array.ndim >= 2]
    return with_rows[0] if len(with_rows) == 1 else None
