"""The time after which a search begins no further step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NEVER", "Deadline", "WorkClock"]

_SLOWEST = 8.0


@dataclass(frozen=True)
class Deadline:
    """A point in time.

    Attributes:
        end: the time on the clock `now`, in seconds.
        now: the clock.
    """

    end: float
    now: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, now: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline that many seconds from now."""
        return cls(now() + seconds, now)

    def sooner(self, share: float) -> Deadline:
        """Return an earlier deadline that leaves `share`, 0 to 1, of the remaining time for later steps."""
        left = max(self.end - self.now(), 0.0)
        return self if math.isinf(left) else Deadline(self.end - share * left, self.now)

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.now() >= self.end


class WorkClock:
    """Counts the seconds in which this process works, and not those in which others keep the processors.

    With a limit of wall time, a busy machine would try less, so that the same files gave other ranges. The
    clock runs as fast as the processor time of all threads, at most as fast as the wall's clock, and at least
    an eighth as fast, since work on a GPU or in other processes takes no processor time here.
    """

    def __init__(self) -> None:
        self._wall, self._processor = time.monotonic(), time.process_time()

    def __call__(self) -> float:
        """Return the seconds since the clock was made."""
        wall = time.monotonic() - self._wall
        return max(min(wall, time.process_time() - self._processor), wall / _SLOWEST)


NEVER = Deadline(float("inf"))
"""No limit of time."""
