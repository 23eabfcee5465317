"""Samples from ``.npz`` and ``.npy`` files, and folders of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.data.batched_arrays import BatchedArrays
from trtbuild.data.feeds import as_feeds, axes_of
from trtbuild.data.samples import Sample, Source, array_key
from trtbuild.data.skipped import without_input
from trtbuild.data.stored import StoredArray, stored_arrays
from trtbuild.data.survey import SURVEYED_SAMPLES
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trtbuild.data.skipped import Skipped
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["ArrayFolder", "ArraySource", "is_array_folder", "open_folder"]

SUFFIXES = (".npz", ".npy")

# Kinds of dtypes that a network may accept; types of ml_dtypes have the kind 'V'.
_NUMBERS = frozenset("biufcV")


@dataclass(frozen=True)
class ArraySource(Source):
    """Samples from one array per input.

    Attributes:
        path: the file, for messages.
        arrays: input name -> array whose batch axis runs over the samples.
        inputs: the network's inputs.
        preprocess: applied to every row of a single image input; None uses rows as they are.
        unused: names of other arrays in the file, except labels.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    inputs: Sequence[TensorSpec]
    preprocess: Preprocess | None = None
    unused: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return str(self.path)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The arrays that belong to no input."""
        return without_input(self.unused)

    @classmethod
    def read(
        cls, path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None
    ) -> ArraySource:
        """Open `path` and find the array of each input: by the input's name, or the only one there is.

        Raises:
            DataError: unreadable, empty, no array for an input, or arrays of different lengths.
        """
        if path.is_dir():
            stored = {file.stem: _only_one(file) for file in _files(path)}
        else:
            stored = stored_arrays(path)
        arrays = _arrays_for_inputs(path, stored, inputs, preprocess)
        if not len(BatchedArrays.of(arrays, inputs, f"'{path}'")):
            raise DataError(f"'{path}' holds no samples: its arrays have length 0.")
        return cls(path, arrays, inputs, preprocess, _unused(stored, inputs, preprocess))

    def __reduce__(self) -> tuple[object, ...]:
        # another process reads the file itself instead of receiving the arrays
        return ArraySource.read, (self.path, self.inputs, self.preprocess)

    def __iter__(self) -> Iterator[Sample]:
        rows = BatchedArrays.of(self.arrays, self.inputs, f"'{self.path}'")
        for index in range(len(rows)):
            name = f"{self.path.name}[{index}]"
            known = self._keys.get(index)
            sample = _row(rows, index, name, self.inputs, self.preprocess, known)
            if self._are_in_memory:
                self._keys[index] = sample.key
            yield sample

    @cached_property
    def _keys(self) -> dict[int, bytes]:
        """Row -> its key, for the rows of earlier passes; empty for a mapped file, which may change."""
        return {}

    @cached_property
    def _are_in_memory(self) -> bool:
        return not any(isinstance(array, np.memmap) for array in self.arrays.values())


@dataclass(frozen=True)
class ArrayFolder(Source):
    """A folder in which every ``.npy`` or ``.npz`` file holds one sample, or a batch.

    Attributes:
        path: path of the folder.
        inputs: the network's inputs.
        preprocess: applied to the image input; None uses arrays as they are.
    """

    path: Path
    inputs: Sequence[TensorSpec]
    preprocess: Preprocess | None = None

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return str(self.path)

    @cached_property
    def skipped(self) -> tuple[Skipped, ...]:
        """The arrays in the first files that belong to no input."""
        found: dict[str, None] = {}
        for file in _files(self.path)[:SURVEYED_SAMPLES]:
            found.update(dict.fromkeys(_unused(stored_arrays(file), self.inputs, self.preprocess)))
        return without_input(found)

    def __iter__(self) -> Iterator[Sample]:
        for file in _files(self.path):
            arrays = _arrays_for_inputs(file, stored_arrays(file), self.inputs, self.preprocess)
            if not _is_batch(arrays, self.inputs):
                yield _sample(arrays, file.name, self.inputs, self.preprocess)
                continue
            rows = BatchedArrays.of(arrays, self.inputs, f"'{file}'", may_be_whole=True)
            for index in range(len(rows)):
                name = f"{file.name}[{index}]"
                yield _row(rows, index, name, self.inputs, self.preprocess)


def is_array_folder(path: Path) -> bool:
    """Return whether a folder holds ``.npy`` or ``.npz`` files."""
    return bool(_files(path))


def open_folder(
    path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None
) -> ArraySource | ArrayFolder:
    """Return the samples of a folder: rows of files named as the inputs, else a sample or batch per file.

    Raises:
        DataError: as in `ArraySource.read`.
    """
    names = {file.stem for file in _files(path) if file.suffix.lower() == ".npy"}
    if {spec.name for spec in inputs} <= names:
        return ArraySource.read(path, inputs, preprocess)
    return ArrayFolder(path, tuple(inputs), preprocess)


def _files(path: Path) -> list[Path]:
    found = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def _only_one(file: Path) -> StoredArray:
    (array,) = stored_arrays(file).values()
    return array


def _is_batch(arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]) -> bool:
    """Whether arrays have an axis of samples; arrays with exactly the fixed shapes are one sample."""
    return all(
        arrays[spec.name].ndim == len(spec.dims) and arrays[spec.name].shape != spec.dims
        for spec in inputs
        if spec.dims
    )


def _sample(
    values: Mapping[str, np.ndarray],
    name: str,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
) -> Sample:
    load = partial(as_feeds, values, inputs, preprocess, name)
    num_bytes = sum(array.nbytes for array in values.values())
    return Sample(name, array_key(values.values()), load, axes=axes_of(inputs), num_bytes=num_bytes)


def _row(
    rows: BatchedArrays,
    index: int,
    name: str,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    key: bytes | None = None,
) -> Sample:
    """One of several samples. Its row is read again when it is loaded, and may be gone then.

    With a known `key`, the row is not read to compute it.
    """
    load = partial(_feeds_of_row, rows, index, inputs, preprocess, name)
    key = key or array_key(rows[index].values())
    return Sample(name, key, load, axes=axes_of(inputs))


def _feeds_of_row(
    rows: BatchedArrays,
    index: int,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    name: str,
) -> dict[str, np.ndarray]:
    return as_feeds(rows[index], inputs, preprocess, name)


def _arrays_for_inputs(
    path: Path,
    stored: Mapping[str, StoredArray],
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
) -> dict[str, np.ndarray]:
    """Read the arrays of the inputs, and no others."""
    wanted = [spec.name for spec in inputs]
    have = ", ".join(f"'{name}' {array.shape}" for name, array in stored.items()) or "none"
    named = None if preprocess is None else preprocess.array
    if named is not None and named not in stored:
        raise DataError(f"'{path}' has no array '{named}', which --array names; it holds {have}.")
    found = _names_for(wanted, stored, preprocess)
    if found is not None:
        for name, there in zip(wanted, found):
            if stored[there].dtype.kind not in _NUMBERS:
                raise DataError(
                    f"the array for the input '{name}' in '{path}' is {stored[there].dtype} of the shape "
                    f"{stored[there].shape}; it must hold numbers."
                )
        return {name: stored[there].read() for name, there in zip(wanted, found)}
    missing = next(name for name in wanted if name not in stored)
    raise DataError(
        f"'{path}' has no array for the input '{missing}'; it holds {have}. "
        "Name the arrays after the inputs, or set 'array' in the preprocessing."
    )


def _names_for(
    wanted: Sequence[str], stored: Mapping[str, StoredArray], preprocess: Preprocess | None
) -> list[str] | None:
    """Names of the arrays for the inputs `wanted`, in their order; None if that is not clear."""
    named = None if preprocess is None else preprocess.array
    if all(name in stored for name in wanted) and (named is None or len(wanted) > 1):
        return list(wanted)
    if len(wanted) == 1:
        name = _only_array(stored, preprocess)
        return None if name is None else [name]
    # numpy.savez(path, a, b) names arrays by position
    in_order = [f"arr_{number}" for number in range(len(wanted))]
    return in_order if set(in_order) == stored.keys() else None


def _unused(
    stored: Mapping[str, StoredArray], inputs: Sequence[TensorSpec], preprocess: Preprocess | None
) -> tuple[str, ...]:
    """Names of the numeric arrays that belong to no input and are not labels."""
    taken = _names_for([spec.name for spec in inputs], stored, preprocess)
    others = {name: array for name, array in stored.items() if name not in (taken or stored)}
    if not others:
        return ()
    from trtbuild.data.labels import label_arrays

    labels = label_arrays(others)
    return tuple(
        name
        for name, array in others.items()
        if name not in labels and array.dtype.kind in _NUMBERS
    )


def _only_array(stored: Mapping[str, StoredArray], preprocess: Preprocess | None) -> str | None:
    if preprocess is not None and preprocess.array is not None:
        return preprocess.array
    if len(stored) == 1:
        return next(iter(stored))
    # labels, indices and class names are vectors; samples are not
    with_rows = [
        name for name, array in stored.items() if array.ndim >= 2 and not array.dtype.hasobject
    ]
    return with_rows[0] if len(with_rows) == 1 else None
