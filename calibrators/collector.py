"""The statistics of many tensors, by name."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from calibrators.errors import MergeError, ObservationError
from calibrators.histogram import Histogram, as_float32, observe_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

__all__ = ["Collector", "NonFinite"]


@dataclass(frozen=True, order=True)
class NonFinite:
    """NaN or infinite values in one tensor."""

    tensor: str
    kind: Literal["inf", "nan"]
    batch: int
    """The first batch in which they occurred."""
    count: int
    """How many there were in all batches."""


class Collector:
    """One `Histogram` per tensor, and a record of the batches with NaN or infinite values.

    As with histograms, order and size of the batches do not change the result.

    Args:
        names: the tensors to observe.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._histograms = {name: Histogram() for name in names}
        self._first_batch: dict[tuple[str, Literal["inf", "nan"]], int] = {}

    def observe(self, arrays: Mapping[str, np.ndarray], *, batch: int) -> None:
        """Count the values of some or all of the tensors.

        Args:
            arrays: tensor name to values; see `Histogram.observe`.
            batch: number of the batch, for the record of values that are not finite.

        Raises:
            ObservationError: a tensor is not among those to observe, or its values are not floating
                point. Nothing has been counted then.
        """
        observed = {name: self._histogram_of(name) for name in arrays}
        num_before = {name: (found.num_nan, found.num_inf) for name, found in observed.items()}
        observe_arrays([(observed[name], _as_float32(name, arrays[name])) for name in arrays])
        for name, found in observed.items():
            if (found.num_nan, found.num_inf) != num_before[name]:
                self._note_non_finite(name, batch, num_before[name])

    def add(self, name: str, counted: Histogram, *, batch: int) -> None:
        """Add counts made elsewhere, for example on a GPU; the same as observing the values.

        Args:
            name: the tensor.
            counted: histogram of some of its values.
            batch: number of the batch, for the record of values that are not finite.

        Raises:
            ObservationError: the tensor is not among those to observe.
        """
        histogram = self._histogram_of(name)
        self._histograms[name] = histogram.merge(counted)
        if counted.num_nan or counted.num_inf:
            self._note_non_finite(name, batch, (histogram.num_nan, histogram.num_inf))

    def _histogram_of(self, name: str) -> Histogram:
        if name not in self._histograms:
            raise ObservationError(f"tensor '{name}' is not among those to be observed.")
        return self._histograms[name]

    def _note_non_finite(self, name: str, batch: int, num_before: tuple[int, int]) -> None:
        histogram = self._histograms[name]
        if histogram.num_nan > num_before[0]:
            self._first_batch[name, "nan"] = min(batch, self._first_batch.get((name, "nan"), batch))
        if histogram.num_inf > num_before[1]:
            self._first_batch[name, "inf"] = min(batch, self._first_batch.get((name, "inf"), batch))

    def merge(self, other: Collector) -> Collector:
        """Return a new collector of all values that the two observed; associative and commutative.

        Raises:
            MergeError: the two observe different tensors.
        """
        if self._histograms.keys() != other._histograms.keys():
            odd = sorted(self._histograms.keys() ^ other._histograms.keys())
            raise MergeError(
                f"the parts observe different tensors: '{odd[0]}' is in one of them only."
            )
        merged = Collector(())
        merged._histograms = {
            name: mine.merge(other._histograms[name]) for name, mine in self._histograms.items()
        }
        merged._first_batch = dict(self._first_batch)
        for key, batch in other._first_batch.items():
            merged._first_batch[key] = min(batch, merged._first_batch.get(key, batch))
        return merged

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Tensor name to histogram, in the order of the names given."""
        return MappingProxyType(self._histograms)

    @property
    def non_finite(self) -> list[NonFinite]:
        """Tensors with NaN or infinite values, sorted by name."""
        return sorted(
            NonFinite(
                name,
                kind,
                batch,
                self._histograms[name].num_nan if kind == "nan" else self._histograms[name].num_inf,
            )
            for (name, kind), batch in self._first_batch.items()
        )


def _as_float32(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return as_float32(values)
    except ObservationError as error:
        raise ObservationError(f"tensor '{name}': {error}") from None
