"""Statistics of latency samples: percentiles, mean, throughput, and the ratio of two with its interval.

Runs of one turn are alike (the same clock, the same load), so intervals take turns, not runs, as
independent draws; otherwise they would be far too narrow. Intervals of medians come from order
statistics: for n independent draws the number below the true median is binomial (n, 1/2), whatever the
distribution (David and Nagaraja, Order Statistics, section 7.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.exponential import exp
from trtbuild.verification.intervals import CONFIDENCE, Estimate, Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.latency.measure import Samples

__all__ = ["LatencySummary", "median_interval", "quantile", "ratio", "summarize"]


@dataclass(frozen=True)
class LatencySummary:
    """The figures of one session, in milliseconds unless stated otherwise.

    Attributes:
        name, batch_size, clock: as in the samples.
        num_samples: number of runs.
        median_ms, p90_ms, p95_ms, p99_ms, min_ms, max_ms: over the runs.
        mean_ms: mean with its interval over turns.
        throughput_per_s: images per second, one run after the other: ``1000 batch_size / mean_ms``.
        variation_percent: standard deviation / mean.
    """

    name: str
    batch_size: int
    clock: str
    num_samples: int
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    mean_ms: Estimate
    throughput_per_s: float
    variation_percent: float


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value v so that at least `share` of the values are at most v (no interpolation).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a quantile needs at least one value")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def summarize(samples: Samples) -> LatencySummary:
    """Return the figures of one session's samples."""
    values = np.asarray(samples.latencies_ms)
    turns = Moments()
    for turn in samples.turns:
        turns.add(float(np.mean(turn)))
    mean = turns.estimate()
    ordered = samples.latencies_ms
    return LatencySummary(
        name=samples.name,
        batch_size=samples.batch_size,
        clock=samples.clock,
        num_samples=len(values),
        median_ms=median(ordered),
        p90_ms=quantile(ordered, 0.90),
        p95_ms=quantile(ordered, 0.95),
        p99_ms=quantile(ordered, 0.99),
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        mean_ms=mean,
        throughput_per_s=1000.0 * samples.batch_size / mean.value,
        variation_percent=float(100.0 * values.std() / mean.value),
    )


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the median with its exact interval from order statistics.

    With too few values for `confidence` (fewer than 6 at 95 %, 9 at 99.5 %) the ends are infinite.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a median needs at least one value")
    ordered = sorted(values)
    count = len(ordered)
    rank = _lower_rank(count, (1.0 - confidence) / 2.0)
    low, high = (ordered[rank - 1], ordered[count - rank]) if rank else (-math.inf, math.inf)
    return Estimate(median(ordered), low, high)


def _lower_rank(count: int, tail: float) -> int:
    """Largest r with P(Binomial(count, 1/2) < r) <= tail; the r-th smallest is the low end."""
    log_half = count * math.log(0.5)
    total, rank = 0.0, 0
    while rank <= count // 2:
        log_ways = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        total += math.exp(log_ways + log_half)
        if total > tail:
            break
        rank += 1
    return rank


def ratio(base: Samples, other: Samples, confidence: float = CONFIDENCE) -> Estimate:
    """Return ``other / base`` of samples taken together: the median over rounds of the turns' ratios.

    A turn counts as its median run, so a single slow run changes nothing. Above 1, `other` is slower.

    Raises:
        OptionError: the two were not measured together.
    """
    # not np.median: its first call imports numpy.ma, which takes as long as all else here
    before, after = ([median(turn) for turn in one.turns] for one in (base, other))
    if len(before) != len(after) or base.clock != other.clock or not before:
        raise OptionError(
            f"'{base.name}' and '{other.name}' were not measured together, turn by turn."
        )
    logs = [math.log(b / a) for a, b in zip(before, after)]
    found = median_interval(logs, confidence)
    return Estimate(math.exp(found.value), exp(found.low), exp(found.high))
