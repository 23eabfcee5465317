"""One number for how good a comparison is: what a search compares candidates by. Higher is better."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Gate

    Score: TypeAlias = Callable[[Comparison], float]

__all__ = ["Score", "fidelity", "score_for", "unit_of"]


def fidelity(comparison: Comparison) -> float:
    """SQNR of the worst float output, dB; it moves with every change, so it can rank candidates."""
    found = [output.sqnr_db.value for output in comparison.outputs if output.sqnr_db is not None]
    if not found:
        raise OptionError("no output holds floating-point values; there is nothing to rank by.")
    if any(output.num_non_finite for output in comparison.outputs):
        return float("-inf")
    return min(found)


def _top1(comparison: Comparison) -> float:
    if comparison.accuracy is None:
        raise OptionError("a limit on top-1 needs labels; give them with --labels.")
    return -comparison.accuracy.drop_points.value


def _agreement(comparison: Comparison) -> float:
    found = [o.top1_agreement_percent for o in comparison.outputs]
    values = [estimate.value for estimate in found if estimate is not None]
    if not values:
        raise OptionError("no output looks like class scores.")
    return min(values)


def _metric(comparison: Comparison) -> float:
    if not comparison.metrics:
        raise OptionError("a limit on a metric needs one; give it with --metric.")
    return -max(metric.drop.value for metric in comparison.metrics)


_SCORES = {
    "max_top1_drop": (_top1, "points of top-1"),
    "max_metric_drop": (_metric, "of the metric"),
    "min_top1_agreement": (_agreement, "% top-1 agreement"),
}


def score_for(gate: Gate) -> Score:
    """Give the figure that the tightest kind of limit in `gate` is about; SQNR by default."""
    for name, (score, _) in _SCORES.items():
        if name in gate.limits:
            return score
    return fidelity


def unit_of(gate: Gate) -> str:
    """Give the unit of `score_for`'s figure."""
    return next((unit for name, (_, unit) in _SCORES.items() if name in gate.limits), "dB")
