"""When a search has to come to its end: no step begins later."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NEVER", "Deadline"]


@dataclass(frozen=True)
class Deadline:
    """A time by a clock, both in seconds.

    Attributes:
        end: the time.
        now: the clock.
    """

    end: float
    now: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, now: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline in so many seconds from now."""
        return cls(now() + seconds, now)

    def sooner(self, share: float) -> Deadline:
        """Return one that leaves `share` of the time that there is now, 0 to 1, for what comes after."""
        left = max(self.end - self.now(), 0.0)
        return self if math.isinf(left) else Deadline(self.end - share * left, self.now)

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.now() >= self.end


NEVER = Deadline(float("inf"))
"""The search takes as long as it takes."""
