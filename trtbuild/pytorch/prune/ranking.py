"""The share of each layer's channels to remove in one step: ranked and rounded, for Torch-Pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from torch import nn

from trtbuild.pytorch.layers import LAYERS
from trtbuild.pytorch.prune.dependency import cuts_outputs, forward_arguments
from trtbuild.pytorch.prune.slices import following_slices, sliced_alike
from trtbuild.pytorch.prune.widths import Span, kept_channels, layer_widths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune.attention_blocks import Attention
    from trtbuild.pytorch.prune.key_groups import KeyGroups
    from trtbuild.pytorch.prune.sizes import StoredSize
    from trtbuild.pytorch.spec import PruneSpec

__all__ = ["CutPlan", "layers_given", "make_pruner", "shares"]


@dataclass(frozen=True)
class CutPlan:
    """What to cut and how.

    Attributes:
        spec: the user's request.
        importance: ranks the channels of a group.
        kept: layer path -> why it keeps its width.
        ratios: layer path -> its own ratio.
        attention: blocks with heads.
        key_groups: the blocks whose heads share keys.
        sizes: plain numbers of modules that count channels.
        loss: returns the loss whose gradients rank channels, or None.
        after_step: fine-tunes between steps: ``after_step(module, step, steps)``, or None.
        latency: returns a module's latency as a share of the dense one's, for latency budgets; or None.
        tied: paths of layers that forward needs to have the same width, although their channels are not
            coupled; they are cut to one width, all at once.
    """

    spec: PruneSpec
    importance: Any
    kept: Mapping[str, str]
    ratios: Mapping[str, float]
    attention: tuple[Attention, ...]
    key_groups: tuple[KeyGroups, ...] = ()
    sizes: tuple[StoredSize, ...] = ()
    loss: Callable[[nn.Module], torch.Tensor] | None = None
    after_step: Callable[[nn.Module, int, int], None] | None = None
    latency: Callable[[nn.Module], float] | None = None
    tied: frozenset[str] = frozenset()

    def part(self, step: int, ratio: float) -> float:
        """Return the share of the remaining channels to remove in `step`, from 1, for a ratio of all."""
        steps = self.spec.steps
        return 1 - (1 - ratio * step / steps) / (1 - ratio * (step - 1) / steps)


def shares(
    module: nn.Module, inputs: BoundInputs, plan: CutPlan, step: int, dense: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return layer -> the exact share of its present channels to remove in this step, and the planned widths.

    What remains of a layer after a step is computed from its dense width.

    Args:
        module: after the earlier steps.
        inputs: for the trace.
        plan: the request.
        step: from 1.
        dense: the layers' widths before the first step.
    """
    spec = plan.spec
    own = {path: plan.part(step, ratio) for path, ratio in plan.ratios.items()}
    pruner = make_pruner(module, inputs, plan, ratios=own, everywhere=plan.part(step, spec.ratio))
    wishes = {} if spec.scope == "local" else _ranked(pruner)
    now = layer_widths(module)
    spans: list[Span] = []
    owners: list[list[str]] = []
    for group, units in _groups_of(pruner):
        outs = [item.dep.target.module for item in group if cuts_outputs(pruner.DG, item)]
        paths = layers_given(pruner.DG, group)
        heads = [m.num_heads for m in outs if isinstance(m, nn.MultiheadAttention)]
        if not paths or (spec.head_ratio > 0 and any(one in pruner.num_heads for one in outs)):
            continue
        size = len(group[0].idxs)
        whole = size * dense[paths[0]] / now[paths[0]]
        ratio = next((plan.ratios[path] for path in paths if path in plan.ratios), spec.ratio)
        wish = wishes.get(paths[0], whole * (1 - min(ratio, spec.max_ratio) * step / spec.steps))
        if (spec.scope != "local" and paths[0] not in wishes) or size <= units or size % units:
            wish = size  # other groups do not make up for what cannot go here
        least = max(math.ceil(whole * (1 - spec.max_ratio) - 1e-9), units)
        weight = sum(now[path] for path in paths) / size
        spans.append(Span(size, units, math.lcm(*heads), min(wish, size), least, weight))
        owners.append(paths)
    units_of = {path: span.unit for span, paths in zip(spans, owners) for path in paths}
    spans, owners = _as_tied(spans, owners, plan.tied)
    ratios: dict[str, float] = {}
    planned: dict[str, int] = {}
    for span, left, paths in zip(spans, kept_channels(spans, spec.round_to), owners):
        for path in paths:
            # half a unit less to remove, because the library rounds the remaining width down
            staying = (left + 0.5 * units_of[path]) / span.size
            ratios[path] = 0.0 if left >= span.size else 1 - staying
            planned[path] = left * now[path] // span.size
    return ratios, planned


def _as_tied(
    spans: list[Span], owners: list[list[str]], tied: frozenset[str]
) -> tuple[list[Span], list[list[str]]]:
    """Merge the spans of tied layers that have the same size; return the spans, and the layers of each."""
    found: dict[Any, tuple[Span, list[str]]] = {}
    for number, (span, paths) in enumerate(zip(spans, owners)):
        key = ("tied", span.size) if tied & set(paths) else number
        if key in found:
            one, others = found[key]
            span = replace(  # noqa: PLW2901
                one,
                unit=math.lcm(one.unit, span.unit),
                multiple=math.lcm(one.multiple, span.multiple),
                least=max(one.least, span.least),
                weight=one.weight + span.weight,
            )
            paths = [*others, *paths]  # noqa: PLW2901
        found[key] = span, paths
    return [span for span, _ in found.values()], [paths for _, paths in found.values()]


def layers_given(graph: Any, group: Any) -> list[str]:
    """Return the paths of the layers that make the channels of a group."""
    given = [item.dep.target.module for item in group if cuts_outputs(graph, item)]
    names = graph._module2name
    return list(dict.fromkeys(str(names[one]) for one in given if isinstance(one, LAYERS)))


def _groups_of(pruner: Any) -> Iterator[tuple[Any, int]]:
    """The groups as the library cuts them, and the multiple in which channels are removed."""
    options = {
        "ignored_layers": pruner.ignored_layers,
        "root_module_types": pruner.root_module_types,
    }
    for group in pruner.DG.get_all_groups(**options):
        if pruner._is_atten_group(group)[0]:
            group = pruner._downstream_node_as_root_if_attention(group)  # noqa: PLW2901
        if group is not None:
            yield group, pruner._get_channel_groups(group)


def _ranked(pruner: Any) -> dict[str, float]:
    """Layer -> unrounded number of channels that a ranking over several groups leaves."""
    wishes: dict[str, float] = {}
    for group in pruner.step(interactive=True):
        layers = [item.dep.target.module for item in group if cuts_outputs(pruner.DG, item)]
        root = group[0]
        reads = pruner.DG.is_in_channel_pruning_fn(root.dep.handler)
        width = pruner.DG.get_in_channels if reads else pruner.DG.get_out_channels
        left = width(root.dep.target.module) - len(root.idxs)
        wishes.update(
            {str(pruner.DG._module2name[m]): left for m in layers if isinstance(m, LAYERS)}
        )
    return wishes


def make_pruner(
    module: nn.Module,
    inputs: BoundInputs,
    plan: CutPlan,
    *,
    ratios: Mapping[str, float],
    everywhere: float | None = None,
    heads: Mapping[str, int] | None = None,
) -> Any:
    """Return the library's pruner for one step.

    Args:
        module: the module to be cut.
        inputs: for the trace.
        plan: what to cut.
        ratios: layer -> the share of its channels to remove.
        everywhere: the share for all other layers, ranked in the plan's scope; None ranks within each layer
            and cuts only the layers in `ratios`.
        heads: attention block -> remaining heads.
    """
    spec = plan.spec
    counts = {
        module.get_submodule(path): getattr(module.get_submodule(block.path), block.count)
        for block in plan.attention
        for path in block.projections
    }
    ratios, gone = dict(ratios), {}
    for block in plan.attention:
        now = getattr(module.get_submodule(block.path), block.count)
        fewer = now - (heads or {}).get(block.path, now)
        for path in block.projections if fewer > 0 else ():
            # half a head less, because the library rounds up; and it removes heads only in layers that also
            # lose channels
            gone[module.get_submodule(path)] = (fewer - 0.5) / now
            ratios[path] = max(ratios.get(path, everywhere or 0.0), 1e-6)
    with following_slices():
        pruner = tp.pruner.BasePruner(
            module,
            importance=plan.importance,
            global_pruning=spec.scope != "local" and everywhere is not None,
            isomorphic=spec.scope == "isomorphic" and everywhere is not None,
            pruning_ratio=everywhere or 0.0,
            pruning_ratio_dict={module.get_submodule(path): r for path, r in ratios.items()},
            max_pruning_ratio=1.0 if everywhere is None else spec.max_ratio,
            ignored_layers=[module.get_submodule(path) for path in plan.kept],
            round_to=None,
            # Passed explicitly: the library's default dictionaries are shared by all pruners of a process.
            in_channel_groups={},
            out_channel_groups={},
            num_heads=counts,
            prune_num_heads=bool(gone),
            # Removing whole heads and channels of each head together gives widths that no head count divides.
            prune_head_dims=spec.head_ratio == 0,
            head_pruning_ratio_dict=gone,
            root_module_types=list(LAYERS),
            **forward_arguments(inputs),
        )
    pruner.out_channel_groups.update(sliced_alike(pruner.DG, counts))
    pruner.estimate_importance = _of_whole_parts(pruner)
    return pruner


def _of_whole_parts(pruner: Any) -> Callable[[Any], Any]:
    """The pruner's importance of a group; None if its channels do not divide into the parts it counts.

    The library fails on such groups.
    """
    known = pruner.estimate_importance

    def importance(group: Any) -> Any:
        found = known(group)
        whole = found is None or len(found) % pruner._get_channel_groups(group) == 0
        return found if whole else None

    return importance
