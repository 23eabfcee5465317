"""Inputs with the same values for every sample."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.data.feeds import as_feed
from trtbuild.data.samples import SourceOf
from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbuild.data.samples import Sample
    from trtbuild.model.signature import TensorSpec

__all__ = ["WithConstants", "constant_feeds"]


@dataclass(frozen=True)
class WithConstants(SourceOf):
    """A source whose samples also get constants for the other inputs.

    Attributes:
        source: the source of the samples.
        constants: input name -> its feed.
        axes: batch axes of the constants, as in `Sample.axes`.
    """

    constants: Mapping[str, np.ndarray]
    axes: Mapping[str, int | None] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass."""
        for sample in self.source:
            axes = {**sample.axes, **self.axes}
            yield replace(sample, load=partial(self._load, sample), axes=axes)

    def _load(self, sample: Sample) -> dict[str, np.ndarray]:
        return {**sample.load(), **self.constants}


def constant_feeds(
    constants: Mapping[str, Any], inputs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """Return the feed of each constant input: one number fills it; several are one sample's values.

    Raises:
        DataError: there is no such input, or the dims or dtype do not fit.
    """
    specs = {spec.name: spec for spec in inputs}
    return {name: _feed(name, value, specs) for name, value in constants.items()}


def _feed(name: str, value: Any, specs: Mapping[str, TensorSpec]) -> np.ndarray:
    if name not in specs:
        known = ", ".join(f"'{known}'" for known in specs)
        raise DataError(f"there is no input '{name}' for a constant; the inputs are {known}.")
    spec = specs[name]
    try:
        values = np.asarray(value)
    except ValueError as error:
        raise DataError(f"the constant of '{name}' has lists of different lengths.") from error
    dims = spec.sample_dims
    if values.size == 1 and values.ndim < 2 and not spec.dims:
        values = values.reshape(())  # one number is a scalar; the command line gives a list
    if values.size == 1 and spec.dims and all(isinstance(dim, int) for dim in dims):
        values = np.full(dims, values.item())  # type: ignore[arg-type]
    if values.dtype.kind in "iu" and spec.dtype.kind not in "iub":
        values = values.astype(np.float64)
    return as_feed(values, spec, f"the constant of '{name}'")
