"""The largest magnitude seen: nothing is clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["minmax"]


def minmax(histogram: Histogram) -> tuple[float, str]:
    """The exact `Histogram.observed_amax`, as TensorRT's ``IInt8MinMaxCalibrator`` takes it."""
    return histogram.observed_amax, ""
