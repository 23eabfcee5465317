"""Finds by bisection how much to prune for a budget of multiply-accumulates, parameters or latency."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.errors import BudgetError, OptionError
from trtbuild.pytorch.cost import count_cost
from trtbuild.pytorch.prune.cutting import CutCheck, cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from trtbuild.pytorch.cost import Cost
    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune.ranking import CutPlan
    from trtbuild.pytorch.spec import PruneSpec

__all__ = ["within_budget"]

_HALVINGS = 8
"""Bisection steps: they find the ratio to a third of a percentage point, finer than widths can follow."""
_HALVINGS_BY_CLOCK = 6
"""For latency: each step is measured, and measurements do not resolve finer differences."""


def within_budget(base: nn.Module, inputs: BoundInputs, plan: CutPlan, dense: Cost) -> CutPlan:
    """Return `plan` with the smallest ratio that meets the budget; layers with their own ratio keep it.

    Args:
        base: the dense network, with plain weights.
        inputs: for the trace.
        plan: its spec has a budget.
        dense: the cost of `base`.

    Raises:
        BudgetError: not even the largest ratio meets it.
        OptionError: the limited quantity cannot be counted or measured.
    """

    def tried(ratio: float) -> tuple[float, CutPlan]:
        """The cost of a ratio as a share of the budget (1 meets it exactly), and the ratio's plan."""
        wish = replace(plan, spec=replace(plan.spec, ratio=ratio, steps=1))
        module = cut(base, inputs, wish, CutCheck.NEVER).module
        over = _over(count_cost(module, inputs), dense, plan.spec)
        if plan.spec.latency is not None:
            over = max(over, _measured(module, plan.latency) / plan.spec.latency)
        return over, replace(plan, spec=replace(plan.spec, ratio=ratio))

    low, high = 0.0, plan.spec.max_ratio
    best, found = tried(high)
    if best > 1:
        raise BudgetError(
            f"the budget cannot be met: with {high:.0%} of the channels of every layer gone, {best:.2f} "
            "times as much is left as it allows. Layers that give the output, and what is coupled with them, "
            "keep their width; --prune-max-ratio 0.95 allows more."
        )
    for _ in range(_HALVINGS if plan.spec.latency is None else _HALVINGS_BY_CLOCK):
        middle = (low + high) / 2
        over, plan_there = tried(middle)
        if over > 1:
            low = middle
            continue
        high = middle
        if over >= best:
            best, found = over, plan_there
    return found


def _over(left: Cost, dense: Cost, spec: PruneSpec) -> float:
    shares = []
    if spec.macs is not None:
        if left.macs is None or not dense.macs:
            raise OptionError(
                "the multiply-accumulates of this module cannot be counted; use --prune-params."
            )
        shares.append(left.macs / dense.macs / spec.macs)
    if spec.parameters is not None:
        shares.append(left.parameters / dense.parameters / spec.parameters)
    return max(shares, default=0.0)


def _measured(module: nn.Module, latency: Callable[[nn.Module], float] | None) -> float:
    if latency is None:
        raise OptionError(
            "a budget of latency needs a measurement: prune_channels(..., latency=function), which takes a "
            "module and returns its share of the latency; the commands bring one."
        )
    return latency(module)
