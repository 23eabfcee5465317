"""The compiled loops that count values: the only code that touches every activation.

They are imported when the first value is counted, as Numba takes a third of a second to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from calibrators.grid import BINS_PER_OCTAVE, SHIFT, SIGN_OFFSET
from calibrators.table import NUM_ZERO_SLOTS, TABLE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["count_arrays", "count_equal_bins", "largest_magnitude"]

_BLOCK = 4096  # values and their bin numbers, 32 KiB together, stay in the nearest caches
_LINE = 32  # counts of 16 bits in a cache line
_BINS_AHEAD = 16 * BINS_PER_OCTAVE
_WORTH_READING_AHEAD = 16 * _BLOCK  # values

_zero = np.uint32(0)
_one = np.uint32(1)
_one_more = np.uint16(1)
_full = np.uint16(0)
_shift = np.uint32(SHIFT)
_zero_slots = np.uint32(2 * SIGN_OFFSET)
_slot_mask = np.uint32(NUM_ZERO_SLOTS - 1)
_magnitude = np.uint32(0x7FFFFFFF)
_all_but_sign = np.int32(0x7FFFFFFF)
_sign = np.int32(31)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock, kept on disk where there is a place for it."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the home folder can be written
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


@_compiled
def _read_ahead(small: np.ndarray, first: Any, last: Any) -> Any:
    # One number in each cache line. One after the other they arrive much faster than where counting
    # asks for them.
    sum_read = np.int64(0)
    for j in range(first, last + 1, _LINE):
        sum_read += small[j]
    return sum_read


@_compiled
def _read_ahead_octaves(small: np.ndarray, low: Any, high: Any) -> Any:
    """Bring into the caches where most values between two sort keys will be counted."""
    sum_read = np.int64(0)
    if high > 0:
        last = np.int64(high) >> SHIFT
        sum_read += _read_ahead(small, max(0, last - _BINS_AHEAD), last)
    if low < 0:
        last = (np.int64(low) ^ 0x7FFFFFFF) & 0x7FFFFFFF
        last = SIGN_OFFSET + (last >> SHIFT)
        sum_read += _read_ahead(small, max(SIGN_OFFSET, last - _BINS_AHEAD), last)
    return sum_read


@_compiled
def _count_values(
    bits: np.ndarray, small: np.ndarray, carries: np.ndarray
) -> tuple[Any, Any, Any, Any]:
    numbers = np.empty(_BLOCK, np.uint32)
    low = np.int32(0x7FFFFFFF)
    high = np.int32(-0x80000000)
    least = np.uint32(0xFFFFFFFF)
    sum_read = np.int64(0)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        # Two loops: the first becomes vector instructions, the second is bound by the table alone.
        for j in range(block.size):
            # The casts keep every step at 32 bits, which doubles what a vector instruction does.
            value = np.int32(block[j])
            key = np.int32(value ^ np.int32(np.int32(value >> _sign) & _all_but_sign))
            low = min(low, key)
            high = max(high, key)
            magnitude = np.uint32(block[j] & _magnitude)
            # one less, so that zeros become the largest number instead of the least
            least = min(least, np.uint32(magnitude - _one))
            slot = np.uint32(_zero_slots + np.uint32(np.uint32(j) & _slot_mask))
            numbers[j] = np.uint32(block[j] >> _shift) if magnitude != _zero else slot
        if start == 0 and bits.size >= _WORTH_READING_AHEAD:
            sum_read = _read_ahead_octaves(small, low, high)
        for j in range(block.size):
            number = numbers[j]
            count = np.uint16(small[number] + _one_more)
            small[number] = count
            if count == _full:
                carries[number] += 1
    return low, high, least, sum_read


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_: Any, __: Any) -> Any:
    """An address, as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), generate


@_compiled
def count_arrays(arrays: np.ndarray, found: np.ndarray) -> Any:
    """Count several arrays of float32 values, each into a table of its own, reading each value once.

    All in one call: between two calls, threads that count at the same time wait for the interpreter.

    Args:
        arrays: ``int64[n, 4]``: the address of the values, contiguous; how many, at least one; the addresses
            of the table's `small` and `carries` (`calibrators.table`), which are changed in place. NaN and
            infinities land in the bins above the finite.
        found: ``int64[n, 3]``, written: the smallest and the largest `grid.sort_key`, NaN and infinities
            included; one less than the representation of the smallest non-zero magnitude.

    Returns:
        A number that says nothing: the compiler would leave out reads that nothing comes of.
    """
    sum_read = np.int64(0)
    for i in range(len(arrays)):
        bits = numba.carray(_pointer(arrays[i, 0]), arrays[i, 1], np.uint32)
        small = numba.carray(_pointer(arrays[i, 2]), TABLE_SIZE, np.uint16)
        carries = numba.carray(_pointer(arrays[i, 3]), TABLE_SIZE, np.int64)
        seen = _count_values(bits, small, carries)
        found[i, 0], found[i, 1], found[i, 2] = seen[0], seen[1], seen[2]
        sum_read += seen[3]
    return sum_read


@_compiled
def largest_magnitude(bits: np.ndarray) -> Any:
    """Return the largest ``bits & 0x7fffffff``; above 0x7f800000 when there is a NaN.

    Args:
        bits: ``uint32[n]``, contiguous, the representation of float32 values.
    """
    largest = _zero
    for j in range(bits.size):
        largest = max(largest, bits[j] & _magnitude)
    return largest


@_compiled
def count_equal_bins(values: np.ndarray, upper: float, counts: np.ndarray) -> None:
    """Add magnitudes to the equal bins of ``[0, upper]``.

    Args:
        values: ``float32[n]``, contiguous, finite, none above `upper` in magnitude.
        upper: above 0.
        counts: ``int64[bins]``, changed in place; what equals `upper` goes to the last bin.
    """
    last = counts.size - 1
    for j in range(values.size):
        number = int(abs(np.float64(values[j])) * counts.size / upper)
        counts[min(number, last)] += 1
