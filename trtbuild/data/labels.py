"""Class labels from a CSV, an ``.npz`` or an ``.npy`` file."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.data.arrays import load_arrays
from trtbuild.data.samples import Source
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbuild.data.samples import Sample

__all__ = ["LabelledSource", "read_labels"]


@dataclass(frozen=True)
class LabelledSource(Source):
    """A source whose samples get their labels from a file: by name, or by position."""

    source: Source
    by_name: Mapping[str, int]
    by_position: Sequence[int]

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return self.source.description

    def __iter__(self) -> Iterator[Sample]:
        for position, sample in enumerate(self.source):
            yield replace(sample, label=self._label(position, sample))

    def _label(self, position: int, sample: Sample) -> int:
        if self.by_name:
            for name in (sample.name, Path(sample.name).name):
                if name in self.by_name:
                    return self.by_name[name]
            raise DataError(f"the labels have no entry for the image '{sample.name}'.")
        if position >= len(self.by_position):
            raise DataError(
                f"there are {len(self.by_position)} labels, and '{self.description}' has more samples."
            )
        return self.by_position[position]


def read_labels(path: Path, source: Source) -> Source:
    """Give every sample of `source` its label.

    A CSV file has a header with the columns ``file`` and ``label``, or only ``label`` in the order of
    the samples. An ``.npz`` file has an array ``y``, ``labels`` or ``label``, or only one array.

    Raises:
        DataError: the file is missing, has another form, or has too few labels.
    """
    if path.suffix.lower() in (".npz", ".npy"):
        return LabelledSource(source, {}, _array_labels(path))
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        labels = [int(row["label"]) for row in rows]
    except OSError as error:
        raise DataError(f"cannot read the labels '{path}': {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"the labels '{path}' need a header with the column 'label' (and 'file') and a whole "
            f"number in every row: {error}."
        ) from error
    if rows and "file" in rows[0]:
        return LabelledSource(source, {row["file"]: label for row, label in zip(rows, labels)}, [])
    return LabelledSource(source, {}, labels)


def _array_labels(path: Path) -> list[int]:
    arrays = load_arrays(path)
    named = [arrays[name] for name in ("y", "labels", "label") if name in arrays]
    candidates = named or [array for array in arrays.values() if array.ndim == 1]
    if not candidates or candidates[0].ndim != 1 or candidates[0].dtype.kind not in "iu":
        raise DataError(
            f"'{path}' has no one-dimensional array of whole numbers named 'y' or 'labels'."
        )
    return [int(value) for value in candidates[0]]
