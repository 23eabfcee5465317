"""The time after which a search begins no further step."""

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


NEVER = Deadline(float("inf"))
"""No limit of time."""
