"""Enough images? Samples are added until the thresholds of two halves of the data agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrators.stability import Stability, stability
from trtbuild.data import first_samples, num_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.calibration.options import CalibrateOptions
    from trtbuild.calibration.statistics import Statistics
    from trtbuild.data import Source

__all__ = ["collect_until_stable", "spreads"]

# Samples of the first look; every later one doubles them.
_FIRST_LOOK = 64


def collect_until_stable(
    collect: Callable[[Source], Statistics], source: Source, share: float, options: CalibrateOptions
) -> tuple[Statistics, Source]:
    """Count growing parts of `source` until every tensor's halves agree to `share`, or all is used.

    Returns:
        The statistics, and the samples that they are of.
    """
    total, seen = num_samples(source), 0
    statistics: Statistics | None = None
    for count in _looks(total):
        more = collect(first_samples(source, count, after=seen))
        statistics = more if statistics is None else statistics.merge(more)
        seen = count
        if all(entry.spread <= share for entry in spreads(statistics, options).values()):
            break
    assert statistics is not None
    return statistics, first_samples(source, seen)


def spreads(statistics: Statistics, options: CalibrateOptions) -> Mapping[str, Stability]:
    """Each tensor's thresholds from all samples and from each half; empty when a half saw nothing."""
    first, second = statistics.first.histograms, statistics.second.histograms
    if not all(histogram.num_values for half in (first, second) for histogram in half.values()):
        return {}
    return stability(first, second, options.method, **options.method_options)


def _looks(total: int) -> list[int]:
    counts = []
    count = _FIRST_LOOK
    while count < total:
        counts.append(count)
        count *= 2
    return [*counts, total]
