"""Runs Torch-Pruning over a copy, and checks the result against the dense network (`dense_reference`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.pytorch.copies import copy_module, share_again, shared_parameters
from trtbuild.pytorch.prune.attention_blocks import update_attention
from trtbuild.pytorch.prune.criteria import accumulate
from trtbuild.pytorch.prune.dense_reference import DOES_NOT_RUN, DenseReference
from trtbuild.pytorch.prune.dependency import is_mixer, tracing, update_norms
from trtbuild.pytorch.prune.heads import head_counts, heads_left
from trtbuild.pytorch.prune.key_groups import (
    columns_of,
    cut_key_groups,
    weakest_key_groups,
)
from trtbuild.pytorch.prune.ranking import (
    layers_given,
    make_pruner,
    shares,
)
from trtbuild.pytorch.prune.sizes import update_sizes
from trtbuild.pytorch.prune.slices import TooManyWaysError, operators, sizes_of
from trtbuild.pytorch.prune.widths import layer_widths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune.key_groups import KeyGroups
    from trtbuild.pytorch.prune.ranking import CutPlan

__all__ = ["Cut", "CutCheck", "cut", "history_in"]


class CutCheck(Enum):
    """When the network is checked while it is cut.

    NEVER: if only its size matters.
    EACH_STEP: after all groups of a step; a step that breaks it makes the cut fail.
    EACH_GROUP: after every group; groups that break it are rolled back and named.
    """

    NEVER = auto()
    EACH_STEP = auto()
    EACH_GROUP = auto()


class _Snapshot:
    """Attributes and tensors of all modules, and sizes and cuts in the graph, to be restored.

    Torch-Pruning replaces tensors and never writes into them, so references are enough; it writes into
    its lists of sizes.
    """

    def __init__(self, module: nn.Module, graph: Any) -> None:
        self._states = [
            (child, dict(child.__dict__), dict(child._parameters), dict(child._buffers))
            for child in module.modules()
        ]
        self._sizes = [(one, sizes_of(one)) for one in operators(graph)]
        self._graph, self._cuts = graph, len(graph.pruning_history())

    def restore(self) -> None:
        """Restore everything."""
        for child, attributes, parameters, buffers in self._states:
            child.__dict__.clear()
            child.__dict__.update(attributes)
            child._parameters = parameters
            child._buffers = buffers
        for one, sizes in self._sizes:
            vars(one).update(sizes)
        del self._graph.pruning_history()[self._cuts :]


@dataclass
class Cut:
    """The result of one run.

    Attributes:
        module: the cut network.
        history: Torch-Pruning's record: layer path, whether output side, channel indices.
        heads: module path -> attribute -> new value, of attention blocks, norms and stored sizes.
        key_groups: attention block, removed groups of heads, and the order of its rows; in order of removal.
        culprits: layer path -> what cutting its group broke; these groups were rolled back.
        mixed: whether a group was cut that changes the values of other channels.
        failed: why all cuts together are wrong; empty if correct, or if cut one by one.
        planned: layer path -> planned output channels after the last step.
        stuck: paths of layers whose groups mix channels, and whose cut stops the network from running.
    """

    module: nn.Module
    history: list[tuple[str, bool, list[int]]] = field(default_factory=list)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    culprits: dict[str, str] = field(default_factory=dict)
    key_groups: list[tuple[str, list[int], str]] = field(default_factory=list)
    mixed: bool = False
    failed: str = ""
    planned: Mapping[str, int] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)

    def note(self, *changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the new values of attributes to `heads`."""
        for changed in changes:
            for path, values in changed.items():
                self.heads.setdefault(path, {}).update(values)


def history_in(graph: Any) -> list[tuple[str, bool, list[int]]]:
    """Return the cuts in a graph: layer path, whether output side, channel indices."""
    return [
        (str(name), bool(out), [int(index) for index in indices])
        for name, out, indices in graph.pruning_history()
    ]


def cut(base: nn.Module, inputs: BoundInputs, plan: CutPlan, check: CutCheck) -> Cut:
    """Cut a copy of `base`.

    Args:
        base: with plain weights, in eval mode.
        inputs: for the trace and the checks.
        plan: what to cut.
        check: when the network is checked.
    """
    module = copy_module(base)
    result, dense = Cut(module), layer_widths(base)
    heads = head_counts(base, plan)
    for step in range(1, plan.spec.steps + 1):
        backup = copy_module(module) if step > 1 else None
        try:
            run, left = _step(result, inputs, plan, step, dense, heads, check)
        except TooManyWaysError as error:  # earlier cuts may have coupled more
            path = next((path for path, one in module.named_modules() if one is error.layer), "")
            if not path or path in plan.kept:
                raise
            result.culprits[path] = result.failed = str(error).rstrip(".")
        if result.failed and backup is not None:
            result.module, result.failed = backup, ""
            result.culprits[""] = f"step {step} broke the network; it stays at step {step - 1}"
            break
        if result.failed or run.stale:
            break
        for block in plan.key_groups:
            if block.path in left:
                run.cut_keys(block, left[block.path])
        share_again(module, shared_parameters(base))
        result.history += history_in(run.graph)
        if plan.after_step is not None:
            plan.after_step(module, step, plan.spec.steps)
            module.eval()
    return result


def _step(
    result: Cut,
    inputs: BoundInputs,
    plan: CutPlan,
    step: int,
    dense: Mapping[str, int],
    heads: Mapping[str, int],
    check: CutCheck,
) -> tuple[_Run, dict[str, int]]:
    """Cut channels in one step; return the last run, and the remaining heads."""
    module = result.module
    with tracing(module, inputs), torch.random.fork_rng(devices=[]):
        torch.manual_seed(step)  # seeds the random criterion
        accumulate(module, plan.importance, plan.loss)
        ratios, result.planned = shares(module, inputs, plan, step, dense)
        left = heads_left(heads, plan, step)
        apart = {path: one for path, one in ratios.items() if path not in plan.tied}
        run = _Run(result, inputs, plan, apart, left, check)
        if check is CutCheck.EACH_GROUP:
            run.step_one_by_one()
        else:
            run.step_at_once()
        if plan.tied and not result.failed and not run.stale:
            result.history += history_in(run.graph)
            together = {path: one for path, one in ratios.items() if path in plan.tied}
            run = _Run(result, inputs, plan, together, left, check)
            run.step_at_once()
    return run, left


class _Run:
    """A pruner bound to the network that it cuts.

    Args:
        result: its module is cut.
        inputs: for the trace and the checks.
        plan: what to cut.
        ratios: layer -> exact share of its channels to remove now.
        heads: attention block -> remaining heads after this step.
        check: when to check; `step_one_by_one` always does.
    """

    def __init__(
        self,
        result: Cut,
        inputs: BoundInputs,
        plan: CutPlan,
        ratios: Mapping[str, float],
        heads: Mapping[str, int],
        check: CutCheck,
    ) -> None:
        self.inputs, self.plan, self.result = inputs, plan, result
        self.checks = check is not CutCheck.NEVER
        self.stale = False
        self.pruner = make_pruner(result.module, inputs, plan, heads=heads, ratios=ratios)
        self.graph = self.pruner.DG

    def step_at_once(self) -> None:
        """Cut every group of this step, then check."""
        module = self.result.module
        reference = DenseReference(module, self.inputs) if self.checks else None
        try:
            for group in self.pruner.step(interactive=True):
                self.result.mixed |= is_mixer(self.graph, group, self.pruner.num_heads)
                if reference is not None:
                    reference.note_removed(self.graph, group)
                group.prune()
            self.result.note(*self._update_numbers())
        except TooManyWaysError:
            raise
        except Exception as error:  # noqa: BLE001 - the library fails in many ways
            self.result.failed = f"{type(error).__name__}: {error}"
            return
        if reference is not None:
            self.result.failed = reference.broken(module, values=not self.result.mixed)

    def step_one_by_one(self) -> None:
        """Cut group by group; roll back and name those that break something."""
        module = self.result.module
        for group in self.pruner.step(interactive=True):
            root = str(self.graph._module2name[group[0].dep.target.module])
            parameters = any(isinstance(item.dep.target.module, nn.Parameter) for item in group)
            mixed = is_mixer(self.graph, group, self.pruner.num_heads)
            before, reference = _Snapshot(module, self.graph), DenseReference(module, self.inputs)
            changes: tuple[dict[str, Any], ...] = ()
            try:
                reference.note_removed(self.graph, group)
                group.prune()
                changes = self._update_numbers()
                reason = reference.broken(module, values=not mixed)
            except Exception as error:  # noqa: BLE001 - the library fails in many ways
                reason = f"Torch-Pruning cannot cut it ({type(error).__name__}: {error})"
            if not reason:
                self.result.mixed |= mixed
                self.result.note(*changes)
                continue
            before.restore()
            self.result.culprits[root] = reason
            if mixed and reason.startswith(DOES_NOT_RUN):
                self.result.stuck.update(layers_given(self.graph, group))
            if parameters:  # the graph refers to the parameter that the rollback removed
                self.stale = True
                return

    def cut_keys(self, block: KeyGroups, left: int) -> None:
        """Cut the heads of a block that shares keys down to `left` groups; roll back what breaks."""
        module = self.result.module
        reasons = []
        for one in block.orders:
            gone = weakest_key_groups(module, one, one.groups(module) - left)
            if not gone:
                return
            before = _Snapshot(module, self.graph)
            reference = DenseReference(module, self.inputs) if self.checks else None
            if reference is not None:
                reference.note_unread(one.layers[-1], columns_of(module, one, gone))
            changes = (cut_key_groups(module, one, gone), update_sizes(module, self.plan.sizes))
            reason = reference.broken(module, values=True) if reference is not None else ""
            if not reason:
                self.result.note(*changes)
                self.result.key_groups.append((one.path, gone, one.order))
                return
            before.restore()
            reasons.append(reason)
        self.result.culprits[block.layers[0]] = reasons[0]

    def _update_numbers(self) -> tuple[dict[str, Any], ...]:
        """Update the widths that modules store as numbers, and return the changes."""
        module = self.result.module
        return (
            update_attention(module, self.plan.attention, self.pruner.num_heads),
            update_norms(module),
            update_sizes(module, self.plan.sizes),
        )
