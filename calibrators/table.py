"""The counts of all bins: 16 bits each, which fit better into the caches, with carries for larger counts."""

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

    Only the pages in use take memory: those of the octaves that occur in the tensor, usually less than
    100 KiB.

    Attributes:
        small: ``uint16[TABLE_SIZE]``, the counts modulo 2**16.
        carries: ``int64[TABLE_SIZE]``, the counts divided by 2**16, rounded down.
        addresses: the addresses of `small` and `carries`.
        is_carried: whether any of `carries` is not 0. Otherwise `carries` is never read, as reading would map
            its pages; with a few hundred samples, a bin rarely reaches 2**16 values.
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
        """Set the counts (``int64``) of some bins, which must be zero before."""
        self.small[bins] = counts & 0xFFFF
        carries = counts >> _BITS
        if carries.any():  # writing zeros would map pages
            self.carries[bins] = carries
            self.is_carried = True

    def put_sum(self, first: Table, second: Table, bins: slice) -> None:
        """Set the counts of some bins, which must be zero before, to the sums of two other tables."""
        if not (first.is_carried or second.is_carried):
            before = first.small[bins]
            total = before + second.small[bins]
            if (total >= before).all():  # no sum has reached 2**16
                self.small[bins] = total
                return
        self.put(bins, first.counts(bins) + second.counts(bins))

    def clear(self, bins: slice) -> None:
        """Make the counts of some bins zero."""
        self.small[bins] = 0
        if self.is_carried:
            self.carries[bins] = 0


def _untouched(size: int) -> mmap.mmap:
    """Zeroed memory whose pages are allocated when they are first written.

    NumPy would ask for huge pages at this size, which would make all of it resident.
    """
    if hasattr(mmap, "MAP_PRIVATE"):  # forked processes would count into one shared table
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages refuses this advice
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
