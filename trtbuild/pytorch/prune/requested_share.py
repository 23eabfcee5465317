"""Meets the requested share even if a cut shows more coupling between channels than was known.

For example the maximum over pairs of channels, or the sum of every second channel with its neighbour: a
removed channel takes its partner along, and a share of 30 % becomes 60 %. So the result is measured, ratios
that went too far are reduced, and the dense network is cut again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.pytorch.prune.widths import MISS, layer_widths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.pytorch.prune.cutting import Cut
    from trtbuild.pytorch.prune.ranking import CutPlan

__all__ = ["as_near_as_can_be"]

_TRIES = 4
"""Number of cuts with corrected ratios, and of cuts that mix the ratios of two others."""


@dataclass(frozen=True)
class _Try:
    """One cut: the difference of its share of channels to the request, its plan, and the result."""

    miss: float
    plan: CutPlan
    done: Cut


def as_near_as_can_be(
    dense: Mapping[str, int],
    first: Cut,
    plan: CutPlan,
    again: Callable[[CutPlan], tuple[Cut, CutPlan]],
    achieved: Callable[[Cut, CutPlan], float],
) -> tuple[Cut, CutPlan]:
    """Return the cut that comes nearest to the requested share, and its plan.

    Args:
        dense: the layers' widths before any cut.
        first: the cut by `plan`.
        plan: requests one share for all layers, in widths that suit each.
        again: cuts the dense network by another plan; the returned plan may keep more layers.
        achieved: the share of channels that a cut removed.
    """

    def tried(done: Cut, by: CutPlan) -> _Try:
        return _Try(achieved(done, by) - plan.spec.ratio, by, done)

    tries = [tried(first, plan)]
    while len(tries) <= _TRIES and abs(tries[-1].miss) > MISS:
        ratios = _corrected(dense, tries[-1])
        if ratios == tries[-1].plan.ratios:
            break
        tries.append(tried(*again(replace(tries[-1].plan, ratios=ratios))))
    for _ in range(_TRIES if len(tries) > 1 else 0):
        mixed = _mixed(tries)
        if mixed is None or any(mixed == one.plan.ratios for one in tries):
            break
        tries.append(tried(*again(replace(tries[-1].plan, ratios=mixed))))
    best = min(tries, key=lambda one: abs(one.miss))
    return best.done, best.plan


def _corrected(dense: Mapping[str, int], last: _Try) -> dict[str, float]:
    """New ratios: smaller where more went than planned, larger again where nothing went."""
    left, wish = layer_widths(last.done.module), last.plan.spec.ratio
    ratios = dict(last.plan.ratios)
    for path, planned in last.done.planned.items():
        gone, share = dense[path] - left[path], ratios.get(path, wish)
        if gone > 0 and left[path] != planned:
            ratios[path] = min(share * wish * dense[path] / gone, wish)
        elif not gone and path in ratios:
            ratios[path] = (share + wish) / 2
    return ratios


def _mixed(tries: list[_Try]) -> dict[str, float] | None:
    """Mix the ratios of the nearest cuts below and above the request, half of the differing ones from each.

    None if the request is met, or one side is missing.
    """
    below = max((one for one in tries if one.miss <= 0), key=lambda one: one.miss, default=None)
    above = min((one for one in tries if one.miss >= 0), key=lambda one: one.miss, default=None)
    if below is None or above is None or min(-below.miss, above.miss) <= MISS:
        return None
    share = below.plan.spec.ratio
    paths = [*below.done.planned]
    fewer, more = ([one.plan.ratios.get(path, share) for path in paths] for one in (below, above))
    differ = [path for path, one, other in zip(paths, fewer, more) if one != other]
    taken = set(differ[: len(differ) // 2])
    return {path: (one if path in taken else other) for path, one, other in zip(paths, fewer, more)}
