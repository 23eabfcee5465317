"""Early stopping: samples are added until the thresholds of two halves of the data agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrators import amax_of
from calibrators.methods import Stability, stability
from trtbuild.artifact import EarlyStop
from trtbuild.data import first_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.calibration.histograms import Histograms
    from trtbuild.data import Source
    from trtbuild.options.calibrate import CalibrateOptions

__all__ = ["collect_until_stable", "spreads"]

# Samples at the first check; each later check doubles them.
_FIRST_LOOK = 64


def collect_until_stable(
    collect: Callable[[Source], Histograms], source: Source, share: float, options: CalibrateOptions
) -> tuple[Histograms, EarlyStop]:
    """Count more and more of `source` until every tensor's halves agree to `share`, or no data is left.

    Returns:
        The histograms, and how it ended: with the tensors whose halves do not agree.
    """
    total, seen = len(source.index), 0
    statistics: Histograms | None = None
    apart: dict[str, float | None] = {}
    for count in _looks(total):
        more = collect(first_samples(source, count, after=seen))
        statistics = more if statistics is None else statistics.merge(more)
        seen = count
        apart = _apart(statistics, share, options)
        if not apart:
            break
    assert statistics is not None
    num_tensors = len(statistics.tensors)
    return statistics, EarlyStop(share, statistics.num_samples, total, num_tensors, apart)


def _apart(
    statistics: Histograms, share: float, options: CalibrateOptions
) -> dict[str, float | None]:
    """The tensors whose halves do not agree, the largest difference first."""
    amaxes = {
        name: amax_of(histogram, options.rule, **options.method_options)
        for name, histogram in statistics.together.histograms.items()
        if histogram.num_values  # a tensor that is empty in every sample has no threshold
    }
    found = spreads(statistics, amaxes, options)
    if not found:
        return dict.fromkeys(statistics.tensors)
    wide = (entry for entry in found.values() if entry.spread > share)
    return {entry.tensor: entry.spread for entry in sorted(wide, key=lambda e: -e.spread)}


def spreads(
    statistics: Histograms, amaxes: Mapping[str, float], options: CalibrateOptions
) -> Mapping[str, Stability]:
    """Return each tensor's thresholds, from all samples and from each half; empty if a half has no values.

    Args:
        statistics: the histograms of both halves.
        amaxes: the thresholds from all samples.
        options: name the method that chose them.
    """
    halves = (statistics.first.histograms, statistics.second.histograms)
    first, second = ({n: one for n, one in half.items() if n in amaxes} for half in halves)
    if not all(histogram.num_values for half in (first, second) for histogram in half.values()):
        return {}
    return stability(amaxes, first, second, options.rule, **options.method_options)


def _looks(total: int) -> list[int]:
    counts = []
    count = _FIRST_LOOK
    while count < total:
        counts.append(count)
        count *= 2
    return [*counts, total]
