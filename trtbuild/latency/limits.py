"""Limits on speed, compared with the intervals of latencies.

A limit holds or fails if the whole interval lies on one side of it. Otherwise the result is
"cannot tell", wherever the figure itself lies: a busy machine is no reason to refuse an engine, nor to
ship it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from trtbuild.exponential import exp
from trtbuild.latency.regress import PLACEMENT, drift
from trtbuild.latency.stats import median_interval
from trtbuild.verification.gate import Finding
from trtbuild.verification.intervals import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.latency.measure import Samples
    from trtbuild.latency.regress import LatencyVerdict
    from trtbuild.options.measure import BuildSpeedLimits

__all__ = [
    "SpeedFinding",
    "latency_finding",
    "speed_findings",
    "speedup_finding",
    "speedup_name",
]


@dataclass(frozen=True)
class SpeedFinding(Finding):
    """A limit compared with a latency, or with a ratio of two latencies.

    Attributes:
        between: the interval of the figure, at 99.5 % and widened by the machine's noise.
    """

    between: tuple[float, float] = (-math.inf, math.inf)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        low, high = self.between
        side = "at most" if self.at_most else "at least"
        end = "" if self.passed else ", failed"
        if not self.settled:
            end = ", not decided; measure longer (--seconds), or on a quieter machine"
        return (
            f"{self.what}: {self.found:.4g}{unit} ({low:.3g} to {high:.3g}), {side} "
            f"{self.limit:g}{unit}{end}"
        )


def latency_finding(samples: Samples, limit_ms: float) -> SpeedFinding:
    """Compare `limit_ms` with the median latency.

    The interval is that of order statistics over the medians of turns, widened by how far they drift.
    """
    logs = [math.log(median(turn)) for turn in samples.turns]
    found = median_interval(logs, samples.confidence)
    noise = max(PLACEMENT, drift(logs))
    ends = Estimate(math.exp(found.value), math.exp(found.low - noise), exp(found.high + noise))
    return _held(f"median latency, batch {samples.batch_size}", "ms", limit_ms, ends, at_most=True)


def speedup_name(verdict: LatencyVerdict) -> str:
    """Return the name of the figure of `speedup_finding`."""
    return f"speed over {verdict.base}, batch {verdict.batch_size}"


def speedup_finding(verdict: LatencyVerdict, limit: float) -> SpeedFinding:
    """Compare `limit` with how many times as fast as the base the candidate is."""
    ratio = verdict.ratio
    ends = Estimate(1.0 / ratio.value, 1.0 / ratio.high, 1.0 / ratio.low if ratio.low else math.inf)
    return _held(speedup_name(verdict), "x", limit, ends, at_most=False)


def speed_findings(
    samples: Samples,
    limits: BuildSpeedLimits,
    against_float: LatencyVerdict,
    against_fp16: LatencyVerdict | None,
) -> Iterator[SpeedFinding]:
    """Yield a finding for each limit that is set on an engine of a build.

    Args:
        samples: latencies of the engine.
        limits: the limits.
        against_float: the engine against the float network.
        against_fp16: the engine against an FP16 engine; None if there is nothing to compare with.
    """
    if limits.max_latency is not None:
        yield latency_finding(samples, limits.max_latency)
    if limits.min_speedup is not None:
        yield speedup_finding(against_float, limits.min_speedup)
    if limits.min_fp16_speedup is not None and against_fp16 is not None:
        yield speedup_finding(against_fp16, limits.min_fp16_speedup)


def _held(what: str, unit: str, limit: float, found: Estimate, *, at_most: bool) -> SpeedFinding:
    settled = not found.low < limit < found.high
    beyond = found.value > limit if at_most else found.value < limit
    return SpeedFinding(
        what,
        unit,
        limit,
        at_most,
        found.value,
        passed=not (settled and beyond),
        settled=settled,
        between=(found.low, found.high),
    )
