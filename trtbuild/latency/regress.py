"""Faster, the same, slower, or cannot tell: one engine's latency against another's.

Measured together (A B A B), the two are judged by the ratio of paired turns. Against a baseline from
another day, only the two medians can be compared, and the machine's drift within each measurement
widens the interval on both sides.

The rule, with the interval [low, high] of candidate / base and the margin x:

    same within x %    the interval lies inside [1 / (1 + x), 1 + x]
    slower             the interval lies above 1
    faster             the interval lies below 1
    cannot tell        anything else

The interval has 99.5 % confidence: an engine compared with itself is called slower or faster in fewer
than 1 of 100 comparisons, if disturbances of different rounds are independent. (Other work that holds
one session's cores for seconds looks like a slower engine.) The interval is widened by the difference that
the base showed to *itself* in the same measurement (A against A), and at least by `PLACEMENT`: two sessions
of one file differ a little for as long as they live, because their memory lies elsewhere. It is
also extended to the ratio of the medians over all runs: on a machine with two speeds, the median pair of
turns and the median run can disagree about which is faster, and then neither can be trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.enums import StrEnum
from trtbuild.errors import OptionError
from trtbuild.exponential import exp
from trtbuild.latency.measure import CONFIDENCE
from trtbuild.latency.stats import median_interval, ratio
from trtbuild.options.measure import DEFAULT_MARGIN_PERCENT
from trtbuild.verification.intervals import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.latency.measure import Samples

__all__ = [
    "CONFIDENCE",
    "PLACEMENT",
    "Answer",
    "LatencyVerdict",
    "against_baseline",
    "decide",
    "drift",
    "is_within_reach",
    "taken_together",
]

# In logs. In 60 pairs of sessions of one file on an idle two-core machine, the largest lasting difference
# was 0.4 %.
PLACEMENT = 0.005

_NUM_SEGMENTS = 10

# The interval shrinks with the square root of the time: after an eighth of it, to about a third by the end.
_NARROWER = 0.25


class Answer(StrEnum):
    """What can be said of the candidate's latency."""

    FASTER = "faster"
    SAME = "same"
    SLOWER = "slower"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class LatencyVerdict:
    """The answer, and the figures behind it.

    Attributes:
        base, candidate: names of the two.
        answer: one of four.
        ratio: candidate / base, above 1 is slower; its interval covers `CONFIDENCE` and the noise.
        margin_percent: smaller differences count as the same.
        noise_percent: by how much the interval is widened on both sides.
        smallest_visible_percent: the smallest difference that this measurement could have shown.
        batch_size: batch size of both.
    """

    base: str
    candidate: str
    answer: Answer
    ratio: Estimate
    margin_percent: float
    noise_percent: float
    smallest_visible_percent: float
    batch_size: int = 1

    @property
    def change_percent(self) -> float:
        """Change of the median; above 0 is slower."""
        return 100.0 * (self.ratio.value - 1.0)

    def __str__(self) -> str:
        low, high = (100.0 * (end - 1.0) for end in (self.ratio.low, self.ratio.high))
        interval = f"{self.change_percent:+.1f} %, between {low:+.1f} and {high:+.1f} %"
        against = f"'{self.candidate}' against '{self.base}', batch {self.batch_size}"
        if self.answer is Answer.SAME:
            return f"{against}: the same within {self.margin_percent:g} % ({interval})"
        if self.answer is Answer.CANNOT_TELL:
            return (
                f"{against}: cannot tell ({interval}); the smallest difference that shows here is"
                f" {self.smallest_visible_percent:.1f} %. Measure longer, or on a quieter machine"
            )
        return f"{against}: {self.answer} ({interval})"


def taken_together(
    base: Samples,
    candidate: Samples,
    control: Samples | None = None,
    margin_percent: float = DEFAULT_MARGIN_PERCENT,
) -> LatencyVerdict:
    """Judge two sessions that took turns in one process.

    Args:
        base: the samples to compare with.
        candidate: the samples to judge.
        control: the base a second time, in the same turns: A against A.
        margin_percent: smaller differences count as the same.

    Raises:
        OptionError: they were not measured together, or the margin is not above 0.
    """
    found = _holding(
        ratio(base, candidate, candidate.confidence),
        median(candidate.latencies_ms) / median(base.latencies_ms),
    )
    noise = abs(math.log(ratio(base, control).value)) if control else 0.0
    return decide(
        base.name, candidate.name, found, max(noise, PLACEMENT), margin_percent, base.batch_size
    )


def against_baseline(
    base: Samples, candidate: Samples, margin_percent: float = DEFAULT_MARGIN_PERCENT
) -> LatencyVerdict:
    """Judge a session by samples taken earlier on the same device.

    Raises:
        OptionError: batch sizes or clocks differ, or the margin is not above 0.
    """
    if (base.batch_size, base.clock) != (candidate.batch_size, candidate.clock):
        raise OptionError(
            f"the baseline was taken at batch {base.batch_size} by the {base.clock}, this at batch"
            f" {candidate.batch_size} by the {candidate.clock}; they cannot be compared."
        )
    logs = [[math.log(median(turn)) for turn in s.turns] for s in (base, candidate)]
    # each with half the error probability, so that both together hold with CONFIDENCE
    earlier, now = (
        median_interval(values, 1 - (1 - one.confidence) / 2)
        for values, one in zip(logs, (base, candidate))
    )
    found = Estimate(
        math.exp(now.value - earlier.value),
        exp(now.low - earlier.high),
        exp(now.high - earlier.low),
    )
    noise = max(PLACEMENT, *(drift(values) for values in logs))
    return decide(base.name, candidate.name, found, noise, margin_percent, base.batch_size)


def decide(
    base: str,
    candidate: str,
    found: Estimate,
    noise: float,
    margin_percent: float,
    batch_size: int = 1,
) -> LatencyVerdict:
    """Apply the rule of this module.

    Args:
        base: name of the session to compare with.
        candidate: name of the session to judge.
        found: candidate / base with its interval of `CONFIDENCE`.
        noise: by how much the interval is widened on both sides, as a logarithm.
        margin_percent: smaller differences count as the same.
        batch_size: batch size of both.

    Raises:
        OptionError: the margin is not above 0.
    """
    if not margin_percent > 0:
        raise OptionError(f"the margin must be above 0 %, not {margin_percent:g}.")
    wide = Estimate(found.value, found.low * math.exp(-noise), found.high * math.exp(noise))
    margin = 1.0 + margin_percent / 100.0
    if wide.low >= 1.0 / margin and wide.high <= margin:
        answer = Answer.SAME
    elif wide.low > 1.0:
        answer = Answer.SLOWER
    elif wide.high < 1.0:
        answer = Answer.FASTER
    else:
        answer = Answer.CANNOT_TELL
    reach = max(wide.high / wide.value, wide.value / max(wide.low, 1e-300))
    return LatencyVerdict(
        base=base,
        candidate=candidate,
        answer=answer,
        ratio=wide,
        margin_percent=margin_percent,
        noise_percent=100.0 * math.expm1(noise),
        smallest_visible_percent=100.0 * (reach - 1.0),
        batch_size=batch_size,
    )


def is_within_reach(verdict: LatencyVerdict) -> bool:
    """Return whether an interval a quarter as wide, about the same ratio, would give an answer.

    If not, more time for the same measurement will hardly give one. True if the interval has no ends yet.
    """
    value = verdict.ratio.value
    ends = [
        math.log(end / value) if end else -math.inf
        for end in (verdict.ratio.low, verdict.ratio.high)
    ]
    if not all(map(math.isfinite, ends)):
        return True
    low, high = (value * math.exp(_NARROWER * end) for end in ends)
    narrower = Estimate(value, low, high)
    found = decide(verdict.base, verdict.candidate, narrower, 0.0, verdict.margin_percent)
    return found.answer is not Answer.CANNOT_TELL


def drift(logs: Sequence[float]) -> float:
    """Return the range of the medians of consecutive segments: how far the machine drifts by itself.

    Args:
        logs: logarithms of latencies, in the order of measurement.
    """
    segments = np.array_split(np.asarray(logs), min(_NUM_SEGMENTS, len(logs)))
    medians: list[float] = [median(segment.tolist()) for segment in segments]
    return max(medians) - min(medians)


def _holding(found: Estimate, value: float) -> Estimate:
    """Return `found` with its interval extended so that it holds `value`."""
    return Estimate(found.value, min(found.low, value), max(found.high, value))
