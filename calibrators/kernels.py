"""The loops that read every value of an activation, as machine code.

Import this module inside the function that needs it: llvmlite takes 0.05 s to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.grid import BINS_PER_OCTAVE, SHIFT, SIGN_OFFSET
from calibrators.machine_code import (
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    Variable,
    array_of,
    has_avx2,
    machine_code,
    vector_of,
)

if TYPE_CHECKING:
    from calibrators.machine_code import Array, Code, Kind, Number

__all__ = ["add_error_products", "count_arrays", "count_equal_bins", "largest_magnitude"]

_BLOCK = 4096  # values and their bin numbers, 32 KiB together, fit into the L1 cache
_LANES = 8  # 32-bit numbers in an AVX2 vector
_LINE = 32  # counts of 16 bits in a cache line
_BINS_AHEAD = 16 * BINS_PER_OCTAVE
_WORTH_READING_AHEAD = 16 * _BLOCK  # values
_ALL_BUT_SIGN = 0x7FFFFFFF

_ERRORS_BLOCK = 2048  # values and gradients, 16 KiB together, stay in the L1 cache for all scales
# allows sums in any order, which vector instructions need
_SUMS = ("reassoc", "contract", "nsz")


def count_arrays(arrays: np.ndarray, found: np.ndarray) -> None:
    """Count several arrays of float32 values, each into a table of its own, reading each value once.

    One call counts all arrays: after each call, threads wait for the interpreter lock.

    Args:
        arrays: ``int64[n, 4]``, a row per array: the address of its contiguous values, their number (at least
            one), and the addresses of the table's `small` and `carries` (`calibrators.table`), which are
            changed in place. Zeros are left out; NaN and infinities land in the bins above the finite ones.
        found: ``int64[n, 6]``, written, a row per array. First the bits of the values, NaN and infinities
            included: the smallest and the largest as uint32, the largest as int32, and ``2 m - 1`` modulo
            2**32, m being the smallest non-zero magnitude. Then the number of zeros and that of carries.
    """
    numbers = np.empty(_BLOCK, np.uint32)
    others = _PLACES_OF_OTHERS.ctypes.data
    _count_arrays(arrays.ctypes.data, found.ctypes.data, len(arrays), numbers.ctypes.data, others)


def _places_of_others() -> np.ndarray:
    """For each mask of eight lanes: the lanes with bit 0, then those with bit 1; ``uint8[256, 8]``."""
    chosen = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.argsort(chosen, axis=1, kind="stable").astype(np.uint8)


# A module constant: a cache could drop an array while another thread still reads it.
_PLACES_OF_OTHERS = _places_of_others()


@machine_code(array_of(INT64), array_of(INT64), INT64, array_of(UINT32), array_of(UINT8))
def _count_arrays(
    code: Code, arrays: Array, found: Array, length: Number, numbers: Array, others: Array
) -> None:
    with code.loop(0, length) as i:
        row = i * 4
        bits, size = code.array_at(arrays[row], UINT32), arrays[row + 1]
        small = code.array_at(arrays[row + 2], UINT16)
        carries = code.array_at(arrays[row + 3], INT64)
        seen = _count_values(code, bits, size, small, carries, numbers, others)
        for column, number in enumerate(seen):
            found[i * 6 + column] = number.to(INT64)


class _Extremes:
    """Running minimum and maximum of the bits of the values read: of numbers, or of each lane of vectors."""

    def __init__(self, code: Code, unsigned: Kind, signed: Kind) -> None:
        self._signed = signed
        self.least, self.nonzero = (Variable(code, code.number(0xFFFFFFFF, unsigned)) for _ in "12")
        self.greatest = Variable(code, code.number(0, unsigned))
        self.highest = Variable(code, code.number(-0x80000000, signed))

    def take(self, value: Number, doubled: Number) -> None:
        """Include the bits of a value; `doubled` is twice the bits, so without the sign."""
        self.least.set(self.least.get().smaller(value))
        self.greatest.set(self.greatest.get().larger(value))
        self.highest.set(self.highest.get().larger(value.to(self._signed)))
        # minus one, so that a zero wraps around to the largest number and never is the minimum
        self.nonzero.set(self.nonzero.get().smaller(doubled - 1))

    def merge(self, vectors: _Extremes) -> None:
        """Include the extremes of all lanes of vectors."""
        for mine, theirs in ((self.least, vectors.least), (self.nonzero, vectors.nonzero)):
            for one in theirs.get().lanes():
                mine.set(mine.get().smaller(one))
        for mine, theirs in ((self.greatest, vectors.greatest), (self.highest, vectors.highest)):
            for one in theirs.get().lanes():
                mine.set(mine.get().larger(one))


def _count_values(
    code: Code,
    bits: Array,
    size: Number,
    small: Array,
    carries: Array,
    numbers: Array,
    others: Array,
) -> tuple[Number, ...]:
    """Emit the code that counts one array; `numbers` is a buffer for the bin numbers of a block."""
    seen = _Extremes(code, UINT32, INT32)
    zeros, carried = (Variable(code, code.number(0, INT64)) for _ in "12")
    with code.loop(0, size, _BLOCK) as start:
        length = (size - start).smaller(_BLOCK)
        # Two loops: the first has no branches; only access to the table limits the second, one bin per
        # cycle. It skips zeros, which are half of the values after a ReLU.
        kept = _numbers_of_bins(code, bits, start, length, numbers, others, seen)
        zeros.set(zeros.get() + (length - kept))
        with code.when(start.equals(0)), code.when(size > _WORTH_READING_AHEAD - 1):
            _read_ahead_octaves(code, small, seen)
        with code.loop(0, kept) as j:
            number = numbers[j].to(INT64)
            count = small[number] + 1
            small[number] = count
            with code.when(count.equals(0), likely=False):
                carries[number] = carries[number] + 1
                carried.set(carried.get() + 1)
    extremes = (seen.least, seen.greatest, seen.highest, seen.nonzero)
    return tuple(variable.get() for variable in (*extremes, zeros, carried))


def _numbers_of_bins(
    code: Code,
    bits: Array,
    start: Number,
    length: Number,
    numbers: Array,
    others: Array,
    seen: _Extremes,
) -> Number:
    """Emit the code that writes the bin numbers of a block's non-zero values; returns how many there are."""
    kept, first = Variable(code, code.number(0, INT64)), code.number(0, INT64)
    if has_avx2():
        first = length & -_LANES
        of_lanes = _Extremes(code, vector_of(UINT32, _LANES), vector_of(INT32, _LANES))
        with code.loop(0, first, _LANES) as j:
            value = bits.vector(start + j, _LANES)
            doubled = value + value
            of_lanes.take(value, doubled)
            zero = code.bits_of(doubled.equals(0))
            places = others.vector(zero.to(INT64) * _LANES, _LANES)
            in_order = (value >> SHIFT).in_order(places.to(vector_of(UINT32, _LANES)))
            numbers.put_vector(kept.get(), in_order)
            kept.set(kept.get() + (code.number(_LANES, INT64) - zero.num_ones().to(INT64)))
        seen.merge(of_lanes)
    with code.loop(first, length) as j:
        value = bits[start + j]
        doubled = value + value
        seen.take(value, doubled)
        numbers[kept.get()] = value >> SHIFT
        one, none = code.number(1, INT64), code.number(0, INT64)
        kept.set(kept.get() + code.choose(doubled.equals(0), none, one))
    return kept.get()


def _read_ahead_octaves(code: Code, small: Array, seen: _Extremes) -> None:
    """Emit the code that loads the most used part of the table, the octaves below the extremes, to cache."""
    highest, greatest = seen.highest.get(), seen.greatest.get()
    with code.when(highest > 0):
        _read_ahead(code, small, (highest >> SHIFT).to(INT64), 0)
    with code.when(greatest > _ALL_BUT_SIGN):
        _read_ahead(code, small, (greatest >> SHIFT).to(INT64), SIGN_OFFSET)


def _read_ahead(code: Code, small: Array, last: Number, bottom: int) -> None:
    # Touches one number per cache line. In sequence, lines arrive much faster than in the order of counting.
    with code.loop((last - _BINS_AHEAD).larger(bottom), last + 1, _LINE) as position:
        small.touch(position)


def largest_magnitude(bits: np.ndarray) -> int:
    """Return the largest ``bits & 0x7fffffff``; above 0x7f800000 if there is a NaN.

    Args:
        bits: ``uint32[n]``, contiguous, the bits of float32 values.
    """
    found = np.empty(1, np.uint32)
    _largest_magnitude(bits.ctypes.data, bits.size, found.ctypes.data)
    return int(found[0])


@machine_code(array_of(UINT32), INT64, array_of(UINT32))
def _largest_magnitude(code: Code, bits: Array, size: Number, found: Array) -> None:
    largest = Variable(code, code.number(0, UINT32))
    with code.loop(0, size) as j:
        largest.set(largest.get().larger(bits[j] & _ALL_BUT_SIGN))
    found[code.number(0, INT64)] = largest.get()


def count_equal_bins(values: np.ndarray, upper: float, counts: np.ndarray) -> None:
    """Count magnitudes in equal bins of ``[0, upper]``.

    Args:
        values: ``float32[n]``, contiguous, finite, none above `upper` in magnitude.
        upper: above 0.
        counts: ``int64[bins]``, changed in place; values equal to `upper` go to the last bin.
    """
    _count_equal_bins(values.ctypes.data, values.size, upper, counts.ctypes.data, counts.size)


@machine_code(array_of(FLOAT32), INT64, FLOAT64, array_of(INT64), INT64)
def _count_equal_bins(
    code: Code, values: Array, size: Number, upper: Number, counts: Array, bins: Number
) -> None:
    with code.loop(0, size) as j:
        place = values[j].to(FLOAT64).magnitude() * bins.to(FLOAT64) / upper
        number = place.to(INT64).smaller(bins - 1)
        counts[number] = counts[number] + 1


def add_error_products(
    values: np.ndarray,
    gradient: np.ndarray,
    scales: np.ndarray,
    products: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Add ``sum g dx`` and ``sum (g dx)**2`` for each INT8 scale (`calibrators.output_error`).

    Args:
        values: x, contiguous, ``float32``.
        gradient: g, contiguous, ``float32``, with as many elements.
        scales: ``float32[k]``, all above 0.
        products: ``float64[k]``; ``sum g dx`` is added.
        squares: ``float64[k]``; ``sum (g dx)**2`` is added.
    """
    sums = (scales.ctypes.data, products.ctypes.data, squares.ctypes.data, scales.size)
    _add_error_products(values.ctypes.data, gradient.ctypes.data, values.size, *sums)


@machine_code(
    *(array_of(FLOAT32), array_of(FLOAT32), INT64),
    *(array_of(FLOAT32), array_of(FLOAT64), array_of(FLOAT64), INT64),
    flags=_SUMS,
)
def _add_error_products(
    code: Code,
    x: Array,
    g: Array,
    size: Number,
    scales: Array,
    products: Array,
    squares: Array,
    length: Number,
) -> None:
    with code.loop(0, size, _ERRORS_BLOCK) as start, code.loop(0, length) as k:
        scale = scales[k]
        inverse = code.number(1, FLOAT32) / scale
        product, square = (Variable(code, code.number(0, FLOAT32)) for _ in range(2))
        with code.loop(start, (start + _ERRORS_BLOCK).smaller(size)) as j:
            rounded = (x[j] * inverse).rounded().larger(-128).smaller(127)
            term = g[j] * (rounded * scale - x[j])
            product.set(product.get() + term)
            square.set(square.get() + term * term)
        products[k] = products[k] + product.get().to(FLOAT64)
        squares[k] = squares[k] + square.get().to(FLOAT64)
