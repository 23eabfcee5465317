"""The compiled loops that count values: the only code that touches every activation.

They are imported when the first value is counted, as Numba takes a third of a second to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from calibrators.grid import NUM_ZERO_SLOTS, SHIFT, SIGN_OFFSET

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["count_equal_bins", "count_values", "largest_magnitude"]

_BLOCK = 2048  # values and their bin numbers, 16 KiB together, stay in the first-level cache

_zero = np.uint32(0)
_one = np.uint32(1)
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
def _extremes(bits: np.ndarray, low: Any, high: Any, least: Any) -> tuple[Any, Any, Any]:
    for j in range(bits.size):
        value = np.int32(bits[j])
        key = value ^ ((value >> _sign) & _all_but_sign)
        low = min(low, key)
        high = max(high, key)
        # one less, so that zeros become the largest number instead of the least
        least = min(least, (bits[j] & _magnitude) - _one)
    return low, high, least


@_compiled
def _count_block(bits: np.ndarray, table: np.ndarray, numbers: np.ndarray) -> None:
    # Two loops: the first becomes vector instructions, the second is bound by the table alone.
    for j in range(bits.size):
        slot = _zero_slots + (np.uint32(j) & _slot_mask)
        numbers[j] = bits[j] >> _shift if bits[j] & _magnitude != _zero else slot
    for j in range(bits.size):
        table[numbers[j]] += 1


@_compiled
def count_values(bits: np.ndarray, table: np.ndarray) -> tuple[Any, Any, Any]:
    """Add float32 values to a table of `grid.allocate_table`, reading each of them once.

    Args:
        bits: ``uint32[n]``, contiguous, the representation of the values; at least one.
        table: ``int64``, changed in place. NaN and infinities land in the bins above the finite.

    Returns:
        The smallest and the largest `grid.sort_key`, NaN and infinities included; and one less than
        the representation of the smallest non-zero magnitude.
    """
    numbers = np.empty(_BLOCK, np.uint32)
    low = np.int32(0x7FFFFFFF)
    high = np.int32(-0x80000000)
    least = np.uint32(0xFFFFFFFF)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        low, high, least = _extremes(block, low, high, least)
        _count_block(block, table, numbers)
    return low, high, least


@_compiled
def largest_magnitude(bits: np.ndarray) -> Any:
    """The largest ``bits & 0x7fffffff``; above 0x7f800000 when there is a NaN.

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
