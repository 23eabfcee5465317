"""The histogram of one tensor, on a grid that does not depend on the data."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from calibrators import grid
from calibrators.errors import ObservationError
from calibrators.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Histogram", "as_float32", "load_compiled", "observe_arrays"]

Answer = TypeVar("Answer")

_KEY_OF_INFINITY = grid.sort_key(math.inf)
_KEY_OF_MINUS_INFINITY = grid.sort_key(-math.inf)
_EMPTY_LOW, _EMPTY_HIGH = 0x7FFFFFFF, -0x80000000
_FOLDED_OCTAVES = 11  # bins 1 to 2047 of 2048 equal bins span eleven octaves; bin 0 lies below them


class Histogram:
    """Counts of a tensor's values, by sign, exponent and ten leading mantissa bits of the float32.

    Values may come in any order and in batches of any size, and histograms may be merged in any
    order: the result is the same to the bit. Zeros, NaN and infinities are counted separately;
    smallest and largest value are exact. Memory is fixed (see `calibrators.table`).

    Two threads must not call `observe` of one histogram at the same time; give each thread its own
    histogram and merge them.
    """

    def __init__(self) -> None:
        self._table = Table()
        self._low, self._high = _EMPTY_LOW, _EMPTY_HIGH
        self._first = grid.NUM_MAGNITUDES  # no bin of magnitudes below this one is occupied
        self._num_observed = 0
        self._num_zeros = 0
        self._num_nan = 0
        self._num_inf = 0
        self._answers: dict[str, Any] = {}

    @classmethod
    def from_bins(
        cls,
        numbers: np.ndarray,
        counts: np.ndarray,
        *,
        num_zeros: int,
        num_nan: int,
        num_inf: int,
        minimum: float,
        maximum: float,
    ) -> Histogram:
        """Return a histogram from counts read from a file or made on a device.

        Args:
            numbers: ``int64[n]``, bin numbers without repetition: the upper 19 bits of float32 values
                that are finite and not zero; see `calibrators.grid`.
            counts: ``int64[n]``, the number of values in each of these bins.
            num_zeros: number of zeros, of either sign.
            num_nan: number of NaN.
            num_inf: number of infinite values.
            minimum: the smallest finite value, exactly; 0.0 when there is none.
            maximum: the largest finite value, exactly; 0.0 when there is none.
        """
        num_values = int(counts.sum()) + num_zeros
        histogram = cls()
        histogram._table.put(numbers, counts)
        histogram._num_zeros = num_zeros
        histogram._num_nan, histogram._num_inf = num_nan, num_inf
        histogram._num_observed = num_values + num_nan + num_inf
        if num_values:
            histogram._low, histogram._high = grid.sort_key(minimum), grid.sort_key(maximum)
        if len(numbers):
            histogram._first = int((numbers % grid.SIGN_OFFSET).min())
        return histogram

    def observe(self, values: np.ndarray) -> None:
        """Count all elements of `values`, in one pass and without holding the interpreter lock.

        Args:
            values: any shape, floating point. float64 is rounded to float32, as the engine would;
                values too large for float32 count as infinite.

        Raises:
            ObservationError: the values are not floating point.
        """
        observe_arrays([(self, as_float32(values))])

    def _place_of(self, array: np.ndarray) -> tuple[int, int, int, int]:
        """The row of `calibrators.kernels.count_arrays` that counts an array in this histogram."""
        small, carries = self._table.addresses
        return array.ctypes.data, array.size, small, carries

    def _note(self, array: np.ndarray, seen: Sequence[int]) -> None:
        """Record what `calibrators.kernels.count_arrays` found in an array, besides the counts."""
        least, greatest, highest, nonzero, num_zeros, num_carried = seen
        # As uint32, negative values are above positive ones, and the lowest negative value is the greatest.
        low = grid.key_of_bits(greatest) if greatest >> 31 else least
        high = highest if highest >= 0 else grid.key_of_bits(least)
        self._answers.clear()
        self._first = min(self._first, (nonzero + 1) >> (grid.SHIFT + 1))
        self._num_observed += array.size
        self._num_zeros += num_zeros
        self._table.is_carried |= num_carried > 0
        if low <= _KEY_OF_MINUS_INFINITY or high >= _KEY_OF_INFINITY:
            low, high = self._set_apart_non_finite(array)
        self._low, self._high = min(self._low, low), max(self._high, high)

    def _set_apart_non_finite(self, array: np.ndarray) -> tuple[int, int]:
        for sign in (0, grid.SIGN_OFFSET):
            self._table.clear(slice(sign + grid.NUM_MAGNITUDES, sign + grid.SIGN_OFFSET))
        num_nan = int(np.isnan(array).sum())
        finite = array[np.isfinite(array)]
        self._num_nan += num_nan
        self._num_inf += array.size - finite.size - num_nan
        if finite.size == 0:
            return _EMPTY_LOW, _EMPTY_HIGH
        return grid.sort_key(finite.min()), grid.sort_key(finite.max())

    def merge(self, other: Histogram) -> Histogram:
        """Return a new histogram of the values of both; associative and commutative."""
        merged = Histogram()
        for part in (self, other):
            merged._first = min(merged._first, part._first)
            merged._low, merged._high = min(merged._low, part._low), max(merged._high, part._high)
            merged._num_observed += part._num_observed
            merged._num_zeros += part._num_zeros
            merged._num_nan += part._num_nan
            merged._num_inf += part._num_inf
        for bins in merged._by_sign():
            merged._table.put_sum(self._table, other._table, bins)
        return merged

    @property
    def num_values(self) -> int:
        """Number of finite values, zeros included."""
        return self._num_observed - self._num_nan - self._num_inf

    @property
    def num_zeros(self) -> int:
        """Number of values that are exactly zero, of either sign."""
        return self._num_zeros

    @property
    def num_nan(self) -> int:
        """Number of NaN."""
        return self._num_nan

    @property
    def num_inf(self) -> int:
        """Number of infinite values, of either sign."""
        return self._num_inf

    @property
    def minimum(self) -> float:
        """The smallest finite value, exactly; 0.0 when there is none."""
        return grid.sort_value(self._low) if self.num_values else 0.0

    @property
    def maximum(self) -> float:
        """The largest finite value, exactly; 0.0 when there is none."""
        return grid.sort_value(self._high) if self.num_values else 0.0

    @property
    def observed_amax(self) -> float:
        """The largest finite magnitude, exactly; 0.0 when there is none."""
        return max(abs(self.minimum), self.maximum)

    def magnitudes(self) -> tuple[np.ndarray, np.ndarray]:
        """Occupied bins of |x| without the zeros: ascending bin numbers, and counts; ``int64[n]`` both.

        `grid.lower_edges` gives the edges of these bins.
        """
        stop = max(grid.magnitude_index(self.observed_amax) + 1, self._first)
        counts = self._of_magnitudes(self._first, stop)
        occupied = np.flatnonzero(counts)
        return self._first + occupied, counts[occupied]

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lower and upper edges of the occupied bins of |x|, without the zeros, and counts.

        Both edges are ``float64[n]``, ascending; counts are ``int64[n]``.
        """
        numbers, counts = self.magnitudes()
        return grid.lower_edges(numbers), grid.lower_edges(numbers + 1), counts

    def signed_bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Occupied bins of x, without the zeros: bin numbers, and counts; ``int64[n]`` both.

        Numbers from `grid.SIGN_OFFSET` up are bins of negative values.
        """
        parts = [(part.start, self._table.counts(part)) for part in self._by_sign()]
        numbers = np.concatenate([start + np.flatnonzero(counts) for start, counts in parts])
        return numbers, np.concatenate([counts[counts > 0] for _, counts in parts])

    def _by_sign(self) -> tuple[slice, slice]:
        """The bins of the table between the extremes, of positive and of negative values.

        Reading the rest of the table would touch every page of it.
        """
        ends = (max(0.0, value) for value in (self.maximum, -self.minimum))  # never -0.0
        stops = (max(grid.magnitude_index(end) + 1, self._first) for end in ends)
        positive, negative = (slice(self._first, stop) for stop in stops)
        return positive, slice(grid.SIGN_OFFSET + negative.start, grid.SIGN_OFFSET + negative.stop)

    def _of_magnitudes(self, start: int, stop: int) -> np.ndarray:
        """Counts of |x| in the bins from `start` up to, not including, `stop`, both signs together."""
        counts = self._table.counts(slice(start, stop))
        if self.minimum < 0:
            counts += self._table.counts(slice(grid.SIGN_OFFSET + start, grid.SIGN_OFFSET + stop))
        return counts

    def fold(self, exponent: int) -> np.ndarray:
        """Counts of |x| in 2048 equal bins of ``[0, 2**exponent)``, exactly: ``int64[2048]``.

        Zeros are in bin 0. Values at or above the end of the range are in no bin: their number is
        `num_values` minus the sum. One exception: if the range ends exactly at `observed_amax`,
        values equal to it are in the last bin.

        Args:
            exponent: from -100 to 128.
        """
        top = grid.BINS_PER_OCTAVE * (exponent + 127)
        bottom = top - _FOLDED_OCTAVES * grid.BINS_PER_OCTAVE
        folded = np.zeros(2048, np.int64)
        folded[1:] = np.add.reduceat(self._of_magnitudes(bottom, top), _fold_starts())
        beyond = self._num_at_or_above(top)
        folded[0] = self.num_values - beyond - int(folded.sum())
        if self.observed_amax == 2.0**exponent:
            folded[-1] += beyond
        return folded

    def _num_at_or_above(self, index: int) -> int:
        stop = grid.magnitude_index(self.observed_amax) + 1
        if index >= stop:
            return 0
        return int(self._of_magnitudes(index, stop).sum())

    def answer(self, question: str, find: Callable[[Histogram], Answer]) -> Answer:
        """Return ``find(self)``, kept until more values are observed.

        Args:
            question: the key under which the result is kept; use one string per function.
            find: a function of the histogram alone.
        """
        if question not in self._answers:
            self._answers[question] = find(self)
        found: Answer = self._answers[question]
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine, theirs = self.__getstate__(), other.__getstate__()
        return all(np.array_equal(mine[key], theirs[key]) for key in mine)

    __hash__ = None  # type: ignore[assignment]  # a histogram changes as it observes

    def __repr__(self) -> str:
        return (
            f"Histogram(num_values={self.num_values}, minimum={self.minimum:g}, "
            f"maximum={self.maximum:g})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickling and calibration files, with the occupied bins only."""
        numbers, counts = self.signed_bins()
        return {
            "numbers": numbers,
            "counts": counts,
            "num_zeros": self.num_zeros,
            "num_nan": self._num_nan,
            "num_inf": self._num_inf,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(Histogram.from_bins(**state).__dict__)


def observe_arrays(pairs: Iterable[tuple[Histogram, np.ndarray]]) -> None:
    """Count several arrays in one call, each in its histogram; the same as `Histogram.observe` of each.

    Args:
        pairs: histogram and array; no histogram twice, arrays as `as_float32` returns them.
    """
    counted = [(histogram, array) for histogram, array in pairs if array.size]
    if not counted:
        return
    places = np.array([histogram._place_of(array) for histogram, array in counted], np.int64)
    found = np.empty((len(counted), 6), np.int64)
    _count_arrays()(places, found)
    for (histogram, array), seen in zip(counted, found.tolist()):
        histogram._note(array, seen)


def load_compiled() -> None:
    """Compile the counting loops now (1/8 s); otherwise the first `observe` does."""
    Histogram().observe(np.zeros(1, np.float32))


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return all elements of `values` as contiguous ``float32[n]``, in memory order; a view if possible.

    Raises:
        ObservationError: the values are not floating point.
    """
    if values.dtype != np.float32:
        # bfloat16 comes from ml_dtypes; NumPy does not list it as a floating-point type
        if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
            raise ObservationError(
                f"values of type {values.dtype} have no range to calibrate: they must be float."
            )
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    return values.ravel(order="K")


@functools.cache
def _count_arrays() -> Callable[[np.ndarray, np.ndarray], None]:
    from calibrators.kernels import count_arrays

    return count_arrays


@functools.cache
def _fold_starts() -> np.ndarray:
    """Where bins 1 to 2047 begin among the grid's bins of the eleven octaves, lowest first."""
    first = np.arange(1, 2048)
    octave = np.frexp(first)[1].astype(np.int64) - 1  # bin k lies in octave floor(log2(k))
    offset = (first - (1 << octave)) * (grid.BINS_PER_OCTAVE >> octave)
    starts: np.ndarray = octave * grid.BINS_PER_OCTAVE + offset
    return starts
