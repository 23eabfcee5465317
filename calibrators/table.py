"""The counts of all bins: small ones in 16 bits, so that they stay in the caches, and exact however large."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from calibrators.grid import SIGN_OFFSET

__all__ = ["TABLE_SIZE", "Table"]

TABLE_SIZE = 2 * SIGN_OFFSET
"""Counters: of positive and of negative magnitudes, by the number of their bin."""

_BITS = 16
_SMALL, _CARRIES = np.dtype(np.uint16), np.dtype(np.int64)


class Table:
    """A counter for every bin.

    It takes memory only where it is used: a tensor touches the pages of the octaves that occur in it,
    usually less than 100 KiB.

    Attributes:
        small: ``uint16[TABLE_SIZE]``, the counts modulo 2**16.
        carries: ``int64[TABLE_SIZE]``, the multiples of 2**16 in them.
        addresses: of the two.
        is_carried: whether any of `carries` is not 0. While none is, they are not read, which would map their
            pages: of some hundred samples no bin holds 2**16 values.
    """

    def __init__(self) -> None:
        memory = _untouched(TABLE_SIZE * (_SMALL.itemsize + _CARRIES.itemsize))
        self.carries = np.frombuffer(memory, _CARRIES, TABLE_SIZE)
        self.small = np.frombuffer(memory, _SMALL, TABLE_SIZE, self.carries.nbytes)
        self.addresses = self.small.ctypes.data, self.carries.ctypes.data
        self.is_carried = False

    def counts(self, bins: slice | np.ndarray) -> np.ndarray:
        """Return the counts of some bins, ``int64``."""
        found: np.ndarray = self.small[bins].astype(np.int64)
        if self.is_carried:
            found += self.carries[bins] << _BITS
        return found

    def put(self, bins: slice | np.ndarray, counts: np.ndarray) -> None:
        """Set the counts (``int64``) of some bins that hold none."""
        self.small[bins] = counts & 0xFFFF
        carries = counts >> _BITS
        if carries.any():  # writing zeros would take memory
            self.carries[bins] = carries
            self.is_carried = True

    def put_sum(self, first: Table, second: Table, bins: slice) -> None:
        """Set the counts of some bins that hold none to the sums of two other tables."""
        if not (first.is_carried or second.is_carried):
            before = first.small[bins]
            total = before + second.small[bins]
            if (total >= before).all():  # no sum has passed 2**16
                self.small[bins] = total
                return
        self.put(bins, first.counts(bins) + second.counts(bins))

    def clear(self, bins: slice) -> None:
        """Make the counts of some bins zero."""
        self.small[bins] = 0
        if self.is_carried:
            self.carries[bins] = 0


def _untouched(size: int) -> mmap.mmap:
    """Zeros that become memory page by page, where they are written.

    NumPy would ask for huge pages at this size, which would make all of it resident.
    """
    if hasattr(mmap, "MAP_PRIVATE"):  # else a process and its forks would count into one table
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages refuses the word
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
