"""What a search aims at: the gate's limits, with room for images that it has not seen.

The images that a search chooses on are not those that it is judged on, and whatever is chosen fits
the former a little better. So the search wants more than the limits say:

    SQNR, cosine, relative L2    half of the way from the figure to the worse end of its interval must
                                 meet the limit too
    top-1 lost                   at most half of the limit, where the search images have labels; else
                                 a third of the images that change class are taken to be lost
    everything else              the limit itself
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.score import fidelity

if TYPE_CHECKING:
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.intervals import Estimate

__all__ = ["goodness", "meets"]

_LOST_SHARE_OF_CHANGED = 1 / 3


def goodness(comparison: Comparison) -> float:
    """One number that moves with every change, to rank candidates by; higher is better.

    The negative divergence of the class probabilities where there are class scores (the worst
    output's), else the SQNR of the worst output.
    """
    divergences = [output.divergence_nats for output in comparison.outputs]
    found = [estimate.value for estimate in divergences if estimate is not None]
    return -max(found) if found else fidelity(comparison)


def meets(comparison: Comparison, gate: Gate) -> bool:
    """Say whether the search may stop here.

    Raises:
        OptionError: a limit is on a figure that the search images cannot give.
    """
    searched = gate
    if gate.max_top1_drop is not None:
        if comparison.accuracy is None:
            changed = max(
                (100.0 - output.top1_agreement_percent.value)
                for output in comparison.outputs
                if output.top1_agreement_percent is not None
            )
            if changed * _LOST_SHARE_OF_CHANGED > gate.max_top1_drop:
                return False
            searched = replace(searched, max_top1_drop=None)
        else:
            searched = replace(searched, max_top1_drop=gate.max_top1_drop / 2)
    return judge(_with_room(comparison), searched).passed


def _with_room(comparison: Comparison) -> Comparison:
    outputs = tuple(
        replace(
            output,
            sqnr_db=_halfway(output.sqnr_db, upper_is_worse=False),
            cosine=_halfway(output.cosine, upper_is_worse=False),
            relative_l2=_halfway(output.relative_l2, upper_is_worse=True),
        )
        for output in comparison.outputs
    )
    return replace(comparison, outputs=outputs)


def _halfway(estimate: Estimate | None, *, upper_is_worse: bool) -> Estimate | None:
    if estimate is None:
        return None
    worse = estimate.high if upper_is_worse else estimate.low
    if abs(worse) == float("inf"):
        return estimate
    return replace(estimate, value=(estimate.value + worse) / 2)
