"""Removes channels, in whole coupled groups, from a copy, and checks every cut.

Torch-Pruning finds the groups and ranks the channels; it also silently breaks networks. So layers that
make the output are found and kept, and the cut network is compared with the dense one (`dense_reference`). If
that fails, the groups are cut one by one, those that break something are undone and named, and pruning
starts again without them.

The dependency graph: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900).
Isomorphic ranking: Fang et al. 2024 (arXiv 2407.04616).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.errors import ModelError
from trtbuild.foreign_warnings import warnings_that_only_warn
from trtbuild.pytorch.copies import unwrapped
from trtbuild.pytorch.cost import count_cost
from trtbuild.pytorch.float64 import float64_copy, outputs64, relative_difference
from trtbuild.pytorch.inputs import BoundInputs, bind_inputs
from trtbuild.pytorch.layers import LAYERS, match_layers
from trtbuild.pytorch.prune.budget import within_budget
from trtbuild.pytorch.prune.criteria import importance_of, needed_loss
from trtbuild.pytorch.prune.cutting import Cut, CutCheck, cut
from trtbuild.pytorch.prune.explicit import prune_indices, zero_channels
from trtbuild.pytorch.prune.groups import Prospect, survey
from trtbuild.pytorch.prune.key_groups import SHARED_KEYS
from trtbuild.pytorch.prune.outcome import (
    LayerWidth,
    PruneReport,
    PruneResult,
    prepared,
    remembered,
    width_changes,
)
from trtbuild.pytorch.prune.ranking import CutPlan
from trtbuild.pytorch.prune.requested_share import as_near_as_can_be
from trtbuild.pytorch.prune.widths import MISS, common_multiple, layer_widths, width_of
from trtbuild.pytorch.spec import CRITERIA_BY_LOSS
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbuild.pytorch.prune.dependency import PruneGroup
    from trtbuild.pytorch.prune.rewrites import BlockRewrite
    from trtbuild.pytorch.spec import InputSpec, PruneSpec

__all__ = ["list_groups", "prune_channels"]


_EXACT = 1e-9
_NOTHING_LEFT = "left nothing to remove"
_DECLINED = "Torch-Pruning has no way to cut what it is coupled with"


@warnings_that_only_warn()
def prune_channels(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    spec: PruneSpec,
    *,
    importance: Callable[[Any], Any] | None = None,
    loss: Callable[[nn.Module], torch.Tensor] | None = None,
    after_step: Callable[[nn.Module, int, int], None] | None = None,
    latency: Callable[[nn.Module], float] | None = None,
    rewrites: Sequence[BlockRewrite] = (),
) -> PruneResult:
    """Remove channels from a copy of `module`.

    Nearly every parameter is a new object afterwards: make a new optimizer. With half of the
    channels removed, accuracy is near chance until fine-tuning.

    Args:
        module: any module; masks and computed weights are made plain first.
        inputs: the sample inputs.
        spec: how much to prune, and how to rank.
        importance: ranks a group of Torch-Pruning; replaces ``spec.criterion``.
        loss: returns the loss of a module on the user's data, for criteria that rank by gradients: one value,
            or one per sample, which ``hessian`` uses. None: the function that ``spec.loss`` names.
        after_step: called after every step with the module, the step (from 1) and the number of
            steps; trains the module in place.
        latency: returns a module's latency as a share of the dense one's, for a budget (``spec.latency``).
        rewrites: plug-ins that rewrite blocks so that their channels can be pruned, see
            `trtbuild.pytorch.prune.rewrites`; installed ones are used as well.

    Raises:
        OptionError: a pattern matches no layer, or a criterion needs a loss.
        ModelError: the module cannot be traced, or a rewrite changes its results.
    """
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    without = _without_zeros(module, bound, rewrites) if spec.masked else None
    if without is not None and not spec.removes_ranked:
        return without
    if importance is None:
        importance = importance_of(spec.criterion)
        loss = needed_loss(spec) if loss is None else loss
    with torch.inference_mode(mode=False):  # copies made in it could have no gradients
        base, rewritten = prepared(without.module if without else module, bound, rewrites)
        ratios = _ratios(base, spec)
        prospect = survey(base, bound, spec, None if loss is not None else importance)
        plan = CutPlan(
            spec=spec,
            importance=importance,
            kept=prospect.kept,
            ratios=ratios,
            attention=prospect.attention,
            key_groups=prospect.key_groups,
            sizes=prospect.sizes,
            loss=loss,
            latency=latency,
        )
        ranked = _prune(base, rewritten, bound, plan, prospect, after_step)
    if without is not None:
        return _joined(without, ranked)
    return _with_note(ranked, "no channel was zero.") if spec.masked else ranked


def _without_zeros(
    module: nn.Module, bound: BoundInputs, rewrites: Sequence[BlockRewrite]
) -> PruneResult | None:
    """The module without its zero channels, and a note on how much the output changed; None without such."""
    zero = zero_channels(module, bound)
    if not zero:
        return None
    done = prune_indices(module, bound, zero, rewrites=rewrites)
    whole, small = (outputs64(float64_copy(one).eval(), bound, 1) for one in (module, done.module))
    off = relative_difference(whole, small)
    count = sum(width.before - width.after for width in done.report.widths)
    note = f"removed {counted(count, 'zero channel')}"
    if off > _EXACT:
        note += (
            f"; their biases and the shifts of their norms were not, so the outputs differ by {off:.1e} of "
            "the largest: fine-tune, or mask those as well"
        )
    return _with_note(done, f"{note}.")


def _with_note(result: PruneResult, note: str) -> PruneResult:
    """The result with one more note for the user, before the others."""
    report = result.report
    return replace(result, report=replace(report, notes=(note, *report.notes)))


def _joined(first: PruneResult, then: PruneResult) -> PruneResult:
    """Combine the reports of two cuts; the history of the second has both already."""
    dense = {width.path: width.before for width in first.report.widths}
    widths = tuple(
        replace(one, before=dense.get(one.path, one.before)) for one in then.report.widths
    )
    report = replace(
        then.report,
        widths=widths,
        before=first.report.before,
        inexact=first.report.inexact or then.report.inexact,
        notes=(*first.report.notes, *then.report.notes),
    )
    return replace(then, report=report)


def _prune(
    base: nn.Module,
    rewritten: tuple[tuple[str, str], ...],
    bound: BoundInputs,
    plan: CutPlan,
    prospect: Prospect,
    after_step: Callable[[nn.Module, int, int], None] | None,
) -> PruneResult:
    if plan.spec.budgets:
        plan = within_budget(base, bound, plan, prospect.cost)
    coupled = _coupled(prospect.groups)
    check = CutCheck.EACH_GROUP if prospect.mixes else CutCheck.EACH_STEP
    done, plan = _as_asked(base, bound, plan, coupled, check)
    if after_step is not None:
        done = cut(base, bound, replace(plan, after_step=after_step), check)
        if done.failed:
            raise ModelError(f"pruning broke the module: {done.failed}.")
    widths = _widths(base, done, plan, coupled)
    cut_to = [width.after for width in widths if width.after < width.before]
    achieved = _achieved(widths)
    report = PruneReport(
        asked=plan.spec.ratio,
        achieved=achieved,
        round_to=plan.spec.round_to or common_multiple(cut_to),
        widths=widths,
        before=prospect.cost,
        after=count_cost(done.module, bound),
        inexact=done.mixed,
        notes=_notes(done, rewritten, after_step) + _granular(plan, done, achieved),
    )
    return remembered(base, done, bound, rewritten, report)


def list_groups(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    spec: PruneSpec,
    *,
    rewrites: Sequence[BlockRewrite] = (),
) -> tuple[PruneGroup, ...]:
    """Return the groups of coupled channels, the causes inside them, and why some keep their width.

    Arguments as in `prune_channels`.

    Raises:
        ModelError: the module cannot be traced.
    """
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    by_loss = spec.criterion in CRITERIA_BY_LOSS
    importance = None if by_loss else importance_of(spec.criterion)
    with torch.inference_mode(mode=False):
        base, _ = prepared(module, bound, rewrites)
        return survey(base, bound, spec, importance).groups


def _as_asked(
    base: nn.Module,
    bound: BoundInputs,
    plan: CutPlan,
    coupled: Mapping[str, PruneGroup],
    check: CutCheck,
) -> tuple[Cut, CutPlan]:
    """Cut what can be cut; with other ratios again if the result misses the requested share."""
    done, cut_by = _cut_what_can_be(base, bound, plan, check)
    if not _is_one_share(plan.spec):
        return done, cut_by
    return as_near_as_can_be(
        layer_widths(base),
        done,
        cut_by,
        lambda other: _cut_what_can_be(base, bound, other, check),
        lambda one, by: _achieved(_widths(base, one, by, coupled)),
    )


def _is_one_share(spec: PruneSpec) -> bool:
    """Whether one share of all channels is requested, with widths that are chosen here."""
    others = spec.layer_ratios or spec.head_ratio or spec.round_to or spec.budgets
    return spec.ratio > 0 and not others


def _widths(
    base: nn.Module, done: Cut, plan: CutPlan, coupled: Mapping[str, PruneGroup]
) -> tuple[LayerWidth, ...]:
    """The layers' widths before and after the cut, and why some were kept."""

    def why(path: str) -> str:
        reason = _reason(path, plan, coupled, base)
        declined = path in done.planned and done.planned[path] < width_of(base.get_submodule(path))
        return _DECLINED if declined and reason.endswith(_NOTHING_LEFT) else reason

    return width_changes(base, done.module, why)


def _cut_what_can_be(
    base: nn.Module, bound: BoundInputs, plan: CutPlan, check: CutCheck
) -> tuple[Cut, CutPlan]:
    """Cut until nothing breaks; every round keeps the groups that broke something before.

    Groups that mix channels, and whose cut stops the network from running, are first cut together: if
    forward takes the width of attention from its input, both have to be cut to the same width.
    """
    dense = count_cost(base, bound) if plan.spec.budgets else None
    tie = True
    while True:
        done = cut(base, bound, plan, check)
        if done.failed and not done.culprits and not plan.tied:
            done = cut(base, bound, plan, CutCheck.EACH_GROUP)
        new = {
            path: why
            for path, why in done.culprits.items()
            if path and plan.kept.get(path, SHARED_KEYS) == SHARED_KEYS
        }
        if done.failed and plan.tied:
            plan = replace(plan, tied=frozenset())
        elif tie and len(done.stuck) > 1:
            plan = replace(plan, tied=frozenset(done.stuck))
        elif new:
            plan = replace(plan, kept={**plan.kept, **new})
        else:
            return done, plan
        tie &= not plan.tied and not done.failed
        if dense is not None:
            plan = within_budget(base, bound, plan, dense)


def _ratios(base: nn.Module, spec: PruneSpec) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for pattern, ratio in spec.layer_ratios:
        for path in match_layers(base, (pattern,), LAYERS):
            ratios.setdefault(path, ratio)
    return ratios


def _coupled(groups: Sequence[PruneGroup]) -> dict[str, PruneGroup]:
    """Layer path -> the group of its output channels."""
    return {
        member.path: group for group in groups for member in group.members if member.side == "out"
    }


def _reason(path: str, plan: CutPlan, coupled: Mapping[str, PruneGroup], module: nn.Module) -> str:
    if path in plan.kept:
        return plan.kept[path] + _of_own(coupled.get(path), module)
    if path not in coupled:
        return "nothing calls it as a layer; where other code reads its weight, it is not followed"
    members = [one.path for one in coupled[path].members if one.side == "out"]
    for other in members:
        if other in plan.kept:
            return (
                f"it is coupled with '{other}': {plan.kept[other]}{_of_own(coupled[path], module)}"
            )
    parameters = dict(module.named_parameters())
    raw = next((name for name in members if name in parameters), "")
    if raw:
        return f"it is coupled with the raw parameter '{raw}' in a way that cannot be cut"
    rounding = f"rounding to {plan.spec.round_to}" if plan.spec.round_to else "rounding"
    return f"its ranking, or {rounding}, {_NOTHING_LEFT}"


def _of_own(group: PruneGroup | None, module: nn.Module) -> str:
    """More on why a group was not cut: a layer has parameters besides weight and bias, as in LoRA."""
    layers = dict(module.named_modules())
    for member in group.members if group is not None else ():
        layer = layers.get(member.path)
        if not isinstance(layer, LAYERS):
            continue
        own = [name for name, _ in layer.named_parameters(recurse=False)]
        if more := [name for name in own if name not in ("weight", "bias")]:
            return f" ('{member.path}' has {', '.join(more)} besides its weight: merge them into it first)"
    return ""


def _achieved(widths: Sequence[LayerWidth]) -> float:
    """Share of the channels removed, over the layers that could be cut."""
    free = [w for w in widths if not w.kept or w.kept.endswith(_NOTHING_LEFT)]
    total = sum(width.before for width in free)
    return 1 - sum(width.after for width in free) / total if total else 0.0


def _granular(plan: CutPlan, done: Cut, achieved: float) -> tuple[str, ...]:
    """A sentence if no cut came near the requested share although every step was done."""
    asked = plan.spec.ratio
    if (
        "" in done.culprits
        or not achieved
        or not _is_one_share(plan.spec)
        or abs(achieved - asked) <= MISS
    ):
        return ()
    told = (
        f"{achieved:.1%} of the channels were removed instead of {asked:.1%}: they are removed in groups, "
        "and no cut that was tried came nearer."
    )
    return (told,)


def _notes(done: Cut, rewritten: Sequence[tuple[str, str]], after_step: object) -> tuple[str, ...]:
    notes = [f"'{path}' was rewritten by '{name}', exactly" for path, name in rewritten]
    if "" in done.culprits:
        notes.append(done.culprits[""])
    if after_step is None and done.history:
        notes.append("nothing was fine-tuned: expect an accuracy near chance until it is.")
    return tuple(notes)
