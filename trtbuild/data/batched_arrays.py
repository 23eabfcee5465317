"""Arrays with many samples, one array per input: which run over the samples, and which hold for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.data.stored import check_whole, row_of
from trtbuild.errors import DataError
from trtbuild.model.signature import fixed_batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.model.signature import TensorSpec

__all__ = ["BatchedArrays", "with_batch_axes"]


@dataclass(frozen=True)
class BatchedArrays:
    """Samples along the batch axes of arrays.

    Attributes:
        arrays: input name -> array.
        axes: input name -> the axis of its array that runs over the samples. An axis of length 1 beside
            longer ones means that the array is the same for every sample; so is an array that is not listed.
        num_rows: number of samples.
    """

    arrays: Mapping[str, np.ndarray]
    axes: Mapping[str, int]
    num_rows: int

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, np.ndarray],
        inputs: Sequence[TensorSpec],
        where: str,
        *,
        may_be_whole: bool = False,
    ) -> BatchedArrays:
        """Return the samples of `arrays`.

        An array holds for every sample if its input has no batch axis, or if the array has exactly the
        input's dims while the inputs' batch axes differ in size (a state of 2 x 1 x 128 beside an input of 1
        x 576).

        Args:
            arrays: input name -> array.
            inputs: the network's inputs.
            where: where the arrays come from, for messages.
            may_be_whole: whether arrays that do not share a batch axis are one sample, if they all have the
                ranks and the fixed dims of their inputs.

        Raises:
            DataError: they differ in length, or none has an axis of samples.
        """
        fixed = fixed_batch(inputs)
        axes = {}
        for spec in inputs:
            array = arrays[spec.name]
            if array.ndim and spec.batch_axis is not None and not _is_feed(array, spec, fixed):
                axes[spec.name] = spec.batch_axis
        short = [name for name, axis in axes.items() if arrays[name].ndim <= axis]
        lengths = {n: arrays[n].shape[axis] for n, axis in axes.items() if n not in short}
        several = set(lengths.values()) - {1}
        if not short and len(several) <= 1 and (axes or _any_axis(arrays)):
            return cls(arrays, axes, several.pop() if several else 1)
        if may_be_whole and all(_fits(arrays[spec.name], spec) for spec in inputs):
            return cls(arrays, {}, 1)
        shapes = {name: array.shape for name, array in arrays.items()}
        raise DataError(
            f"the arrays of {where} differ in length, or do not share a batch axis: {shapes}. If the samples "
            "run along another axis than the first, say which: --batch-axis NAME:AXIS."
        )

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return input name -> values of one sample, without the axis of samples.

        Raises:
            DataError: they are mapped from a file that has become shorter.
        """
        return {name: self._row(name, array, row) for name, array in self.arrays.items()}

    def _row(self, name: str, array: np.ndarray, row: int) -> np.ndarray:
        if name not in self.axes:
            check_whole(array)
            return array
        axis = self.axes[name]
        return row_of(array, axis, 0 if array.shape[axis] == 1 else row)


def with_batch_axes(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """Add the axis of samples to `arrays` if they are one sample that lacks it in every input."""
    batched = [spec for spec in inputs if spec.batch_axis is not None]
    lacking = [spec for spec in batched if arrays[spec.name].ndim == len(spec.dims) - 1]
    if not batched or len(lacking) < len(batched):
        return dict(arrays)
    axes = {spec.name: spec.batch_axis for spec in batched}
    return {
        name: array if axes.get(name) is None else np.expand_dims(array, axes[name] or 0)
        for name, array in arrays.items()
    }


def _any_axis(arrays: Mapping[str, np.ndarray]) -> bool:
    return any(array.ndim for array in arrays.values())


def _is_feed(array: np.ndarray, spec: TensorSpec, fixed: int | None) -> bool:
    """Whether an array is a complete feed of an input whose batch size the other inputs do not share."""
    return array.shape == spec.dims and spec.batch not in (1, fixed)


def _fits(array: np.ndarray, spec: TensorSpec) -> bool:
    return array.ndim == len(spec.dims) and all(
        size == dim for size, dim in zip(array.shape, spec.dims) if isinstance(dim, int)
    )
