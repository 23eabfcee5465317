"""Random samples, to try a build; they say nothing about accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.data.feeds import axes_of
from trtbuild.data.samples import Sample, Source, array_key
from trtbuild.errors import DataError
from trtbuild.model.signature import fixed_batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbuild.model.signature import TensorSpec

__all__ = ["RandomSource"]


@dataclass(frozen=True)
class RandomSource(Source):
    """Standard normal floats and zero integers for every input; used only on request."""

    inputs: Sequence[TensorSpec]
    count: int = 64
    seed: int = 0

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return "random data"

    def __iter__(self) -> Iterator[Sample]:
        generator, fixed = np.random.default_rng(self.seed), fixed_batch(self.inputs)
        for index in range(self.count):
            feeds = {spec.name: _draw(spec, fixed, generator) for spec in self.inputs}
            key, axes = array_key(feeds.values()), axes_of(self.inputs)
            yield Sample(f"random[{index}]", key, partial(dict, feeds), axes=axes)


def _draw(spec: TensorSpec, fixed: int | None, generator: np.random.Generator) -> np.ndarray:
    shape = list(spec.dims)
    # a size that the other inputs do not share is not the batch size
    if spec.dims and spec.batch_axis is not None and not _is_fixed_apart(spec, fixed):
        shape[spec.batch_axis] = 1
    unknown = [axis for axis, dim in enumerate(shape) if not isinstance(dim, int)]
    if unknown:
        raise DataError(
            f"the input '{spec.name}' has dims {spec.dims}: axis {unknown[0]} has no fixed size, so "
            "random data cannot be drawn. Give --data."
        )
    if spec.dtype.kind == "f":
        return generator.standard_normal(shape).astype(spec.dtype)  # type: ignore[arg-type]
    return np.zeros(shape, spec.dtype)  # type: ignore[arg-type]


def _is_fixed_apart(spec: TensorSpec, fixed: int | None) -> bool:
    return isinstance(spec.batch, int) and spec.batch != fixed
