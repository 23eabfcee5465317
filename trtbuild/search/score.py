"""Scores how close a candidate is to the float network, and decides whether the search may stop.

The search and the final verdict use different images, and the result fits the search images a little
better. So the search keeps a margin to the gate's limits:

    SQNR, cosine, relative L2,
    figure of the task           the point halfway from the figure to the worse end of its interval must
                                 meet the limit
    top-1 lost                   at most three quarters of the limit
    everything else              the limit itself

Top-1 lost changes by whole images, partly by chance. About a quarter of the images that change class are
lost on balance: those that change are near a tie, and some become right. So a quarter of the images that
change class is a steadier estimate. If the search images have labels, the mean of this estimate and the
measured loss is taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.verification.gate import Gate, judge

if TYPE_CHECKING:
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.tasks.base import TaskScore

__all__ = ["expected_top1_drop", "figure", "meets", "score", "worst_sqnr_db"]

_LOST_SHARE_OF_CHANGED = 0.25
_MARGIN = 0.75
_POINTS_PER_DB = 0.1
_MOST_DB = 100.0


def worst_sqnr_db(comparison: Comparison) -> float:
    """Return the SQNR of the worst part of any float output, dB; minus infinity if values are not finite.

    Raises:
        OptionError: no output holds floating-point values.
    """
    found = comparison.worst_sqnr_db
    if found is None:
        raise OptionError("no output holds floating-point values; there is nothing to rank by.")
    if any(output.num_non_finite for output in comparison.outputs):
        return float("-inf")
    return found


def figure(comparison: Comparison) -> float | None:
    """Return the main figure of the task, mostly in percent, higher is better; None without a task."""
    task = comparison.task
    return None if task is None or task.main is None else task.main.estimate.value


def _is_classified(comparison: Comparison) -> bool:
    """Whether the task is classification, where divergence says more than the share of equal classes."""
    return comparison.task is not None and comparison.task.task == "classify"


def score(comparison: Comparison, gate: Gate | None = None) -> float:
    """Return one number that reflects even small changes, to rank candidates by; higher is better.

    If `gate` limits SQNR alone, it is the SQNR of the worst output. Otherwise, for a task other than
    classification, it is `figure` plus a tenth of a point per decibel of SQNR: boxes, texts and neighbours
    change one at a time, partly by chance, and SQNR alone ranks such networks wrongly. Otherwise, it is
    the negative divergence of the class probabilities (of the worst output) if there are class scores, else
    the SQNR of the worst output.
    """
    if gate is not None and gate.limits.keys() == {"min_sqnr"}:
        return worst_sqnr_db(comparison)
    found_figure = figure(comparison)
    if found_figure is not None and not _is_classified(comparison):
        sqnr = max(-_MOST_DB, min(worst_sqnr_db(comparison), _MOST_DB))
        return found_figure + _POINTS_PER_DB * sqnr
    divergences = [output.divergence_nats for output in comparison.outputs]
    found = [estimate.value for estimate in divergences if estimate is not None]
    return -max(found) if found else worst_sqnr_db(comparison)


def meets(comparison: Comparison, gate: Gate) -> bool:
    """Return whether the limits are met with a margin, so that the search may stop.

    Raises:
        OptionError: a limit is on a figure that the search images cannot give.
    """
    if gate.max_top1_drop is not None:
        if expected_top1_drop(comparison) > _MARGIN * gate.max_top1_drop:
            return False
        gate = replace(gate, max_top1_drop=None)
    return judge(_with_margin(comparison), gate).holds


def expected_top1_drop(comparison: Comparison) -> float:
    """Return how many points of top-1 other images would lose, by the estimate of this module.

    Raises:
        OptionError: no output looks like class scores.
    """
    agreement = comparison.top1_agreement_percent
    if agreement is None:
        raise OptionError("a limit on top-1 needs an output that looks like class scores.")
    expected = _LOST_SHARE_OF_CHANGED * (100.0 - agreement)
    if comparison.accuracy is None:
        return expected
    return (expected + comparison.accuracy.drop_points.value) / 2


def _with_margin(comparison: Comparison) -> Comparison:
    outputs = tuple(
        replace(
            output,
            sqnr_db=_halfway(output.sqnr_db, upper_is_worse=False),
            cosine=_halfway(output.cosine, upper_is_worse=False),
            relative_l2=_halfway(output.relative_l2, upper_is_worse=True),
            parts=tuple(
                replace(part, sqnr_db=_halfway(part.sqnr_db, upper_is_worse=False) or part.sqnr_db)
                for part in output.parts
            ),
        )
        for output in comparison.outputs
    )
    return replace(comparison, outputs=outputs, task=_task_with_margin(comparison.task))


def _task_with_margin(task: TaskScore | None) -> TaskScore | None:
    if task is None or task.main is None:
        return task
    estimate = _halfway(task.main.estimate, upper_is_worse=False)
    assert estimate is not None
    return replace(task, main=replace(task.main, estimate=estimate))


def _halfway(estimate: Estimate | None, *, upper_is_worse: bool) -> Estimate | None:
    if estimate is None:
        return None
    worse = estimate.high if upper_is_worse else estimate.low
    if abs(worse) == float("inf"):
        return estimate
    return replace(estimate, value=(estimate.value + worse) / 2)
