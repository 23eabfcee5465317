"""Rows of arrays, one array an input: which arrays run over the samples, and which hold for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """Samples along axis 0 of arrays.

    Attributes:
        arrays: input name -> array. One of a single row beside longer ones, and a scalar, hold for every
            sample.
        num_rows: how many samples there are.
    """

    arrays: Mapping[str, np.ndarray]
    num_rows: int

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], where: str) -> Rows:
        """Return the samples of `arrays`; `where` they come from is for messages.

        Raises:
            DataError: they differ in length, or none has an axis of samples.
        """
        lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
        several = set(lengths.values()) - {1}
        if not lengths or len(several) > 1:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise DataError(
                f"the arrays of {where} differ in length, or do not share a batch axis: {shapes}."
            )
        return cls(arrays, several.pop() if several else 1)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return input name -> values of one sample, without the axis of samples."""
        return {name: _row(array, row) for name, array in self.arrays.items()}


def _row(array: np.ndarray, row: int) -> np.ndarray:
    if not array.ndim:
        return array
    return np.asarray(array[0 if len(array) == 1 else row])
