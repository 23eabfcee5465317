"""How much is tried for an INT8 network before it is built."""

from __future__ import annotations

from trtbuild.enums import StrEnum

__all__ = ["Effort", "seconds_for"]


class Effort(StrEnum):
    """How much is tried: more takes longer, and serves networks that are hard to quantize."""

    FAST = "fast"
    NORMAL = "normal"
    HIGH = "high"


# Times the calibration's own seconds, and the least.
_LIMITS = {Effort.FAST: (1.0, 20.0), Effort.NORMAL: (3.0, 60.0), Effort.HIGH: (20.0, 600.0)}


def seconds_for(effort: Effort, calibration_seconds: float) -> float:
    """Return how long the search may take at most, in seconds, for a calibration that took so long."""
    times, least = _LIMITS[effort]
    return max(times * calibration_seconds, least)
