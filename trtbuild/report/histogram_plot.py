"""A tensor's histogram of magnitudes with the thresholds that were chosen for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.grid import lower_edges
from trtbuild.report.svg import Mark, bars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Histogram

__all__ = ["histogram_plot"]

_NUM_BARS = 96


def histogram_plot(name: str, histogram: Histogram, amaxes: Mapping[str, float]) -> str:
    """Draw magnitudes from 0 to the largest seen (or chosen), counts on a logarithmic scale.

    Args:
        name: of the tensor.
        histogram: its statistics; zeros are left out.
        amaxes: label -> threshold.
    """
    end = max([histogram.observed_amax, *amaxes.values()]) * 1.02
    numbers, counts = histogram.magnitudes()
    middles = (lower_edges(numbers) + lower_edges(numbers + 1)) / 2
    heights, edges = np.histogram(middles, bins=_NUM_BARS, range=(0.0, end), weights=counts)
    marks = [
        Mark(amax, f"{label} {amax:.4g}", number)
        for number, (label, amax) in enumerate(amaxes.items())
    ]
    return bars(
        edges.tolist(),
        heights.tolist(),
        "|x|",
        marks,
        logarithmic=True,
        title=f"magnitudes of {name}",
    )
