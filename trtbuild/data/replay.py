"""Samples that are costly to read, kept in memory from the second pass on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.data.samples import Sample

__all__ = ["MOST_HELD_BYTES", "Replay", "Sized"]

MOST_HELD_BYTES = 256 * 2**20
"""At most this much data is kept in memory for further passes."""

Sized = tuple["Sample", int]
"""A sample, and its size in bytes."""


class Replay:
    """Passes over samples: the first pass keeps nothing, the second keeps every sample it reads.

    The first pass shows what the data is. Because the second pass reads again, it detects data that differs
    from pass to pass. After that nothing is read twice: a pass that goes further than those before it
    continues where they ended.

    Args:
        read: starts a pass over all samples.
    """

    def __init__(self, read: Callable[[], Iterator[Sized]]) -> None:
        self._read = read
        self._is_first = True
        self._is_small = True
        self._is_busy = False
        self._held: list[Sample] = []
        self._num_bytes = 0
        self._more: Iterator[Sized] | None = None

    def __iter__(self) -> Iterator[Sample]:
        if self._is_first or self._is_busy or not self._is_small:
            yield from (sample for sample, _ in self._read())
            self._is_first = False
            return
        self._is_busy = True
        try:
            yield from self._held
            yield from self._further()
        finally:
            self._is_busy = False

    def _further(self) -> Iterator[Sample]:
        """The samples that no pass has kept yet."""
        more = self._more = self._read() if self._more is None else self._more
        try:
            for sample, num_bytes in more:
                self._hold(sample, num_bytes)
                yield sample
        except GeneratorExit:  # the caller needs no more for now
            raise
        except BaseException:
            self._forget()
            raise

    def _hold(self, sample: Sample, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._is_small and self._num_bytes <= MOST_HELD_BYTES:
            self._held.append(sample)
        else:
            self._is_small = False
            self._forget()

    def _forget(self) -> None:
        self._held, self._num_bytes, self._more = [], 0, None
