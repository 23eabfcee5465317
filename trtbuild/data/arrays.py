"""Samples from ``.npz`` and ``.npy`` files."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.data.feeds import as_feeds
from trtbuild.data.samples import Sample, Source, array_key
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["ArraySource", "load_arrays"]


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
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise DataError(f"the data '{path}' does not exist.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"cannot read the data '{path}': it is damaged, or holds Python objects ({_line(error)}). "
            "Write it again with numpy.savez."
        ) from error


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


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
