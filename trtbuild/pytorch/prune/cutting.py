"""Runs Torch-Pruning over a copy, all groups at once or one by one, and checks the result.

The check: shapes for two inputs, and values against zeroed channels.

Removing a channel is the same as multiplying it by zero where it is read. So the dense network with the
readers' weights of the removed channels set to zero must compute the same as the cut network. This finds
errors that shapes do not show: a channel shuffle runs with half of the channels, but is wrong.

The two are equal unless a norm or attention mixes the channels (`dependency.is_mixer`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.errors import ModelError, first_line
from trtbuild.pytorch.copies import (
    copy_module,
    float64_copy,
    outputs64,
    relative_difference,
    share_again,
    shared_parameters,
)
from trtbuild.pytorch.inputs import other_batch
from trtbuild.pytorch.layers import LAYERS, TRANSPOSED
from trtbuild.pytorch.prune.dependency import is_mixer, tracing, update_attention, update_norms
from trtbuild.pytorch.prune.heads import head_counts, heads_left
from trtbuild.pytorch.prune.key_groups import (
    columns_of,
    cut_key_groups,
    weakest_key_groups,
)
from trtbuild.pytorch.prune.ranking import (
    accumulate,
    layer_widths,
    layers_given,
    make_pruner,
    shares,
)
from trtbuild.pytorch.prune.sizes import update_sizes
from trtbuild.pytorch.prune.slices import TooManyWaysError, operators, sizes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune.key_groups import KeyGroups
    from trtbuild.pytorch.prune.ranking import CutPlan

__all__ = ["Cut", "DenseReference", "Snapshot", "cut", "history_in"]


_TOLERANCE = 1e-9
_DOES_NOT_RUN = "the network does not run without them"


class Snapshot:
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


class DenseReference:
    """The dense network, with which a cut one is compared."""

    def __init__(self, dense: nn.Module, inputs: BoundInputs) -> None:
        self._dense = float64_copy(dense)
        self._samples = [(inputs, 1), *((other, 2) for other in other_batch(inputs))]
        # Original indices of the input channels that a layer still has.
        self._survivors: dict[str, torch.Tensor] = {}

    def note_removed(self, graph: Any, group: Any) -> None:
        """Zero the dense network's weights that read the channels of `group`. Call it before the cut."""
        for item in group:
            layer = item.dep.target.module
            reads = graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and isinstance(layer, LAYERS):
                self._zero(str(graph._module2name[layer]), [int(index) for index in item.idxs])

    def _zero(self, path: str, indices: list[int]) -> None:
        layer = self._dense.get_submodule(path)
        groups = getattr(layer, "groups", 1)
        depthwise = groups > 1 and groups == layer.weight.shape[0] * (
            layer.weight.shape[1] if isinstance(layer, TRANSPOSED) else 1
        )
        if depthwise:
            return  # it passes each channel on; the weights that read its output are zeroed
        inputs = layer.weight.shape[0 if isinstance(layer, TRANSPOSED) else 1]
        inputs *= 1 if isinstance(layer, TRANSPOSED) else groups
        survivors = self._survivors.get(path, torch.arange(inputs))
        gone = survivors[indices]
        keep = torch.ones(len(survivors), dtype=torch.bool)
        keep[indices] = False
        self._survivors[path] = survivors[keep]
        with torch.no_grad():
            if isinstance(layer, TRANSPOSED):
                layer.weight[gone] = 0
            else:
                grouped = layer.weight.view(groups, -1, *layer.weight.shape[1:])
                for channel in gone.tolist():
                    size = layer.weight.shape[1]
                    grouped[channel // size, :, channel % size] = 0

    def note_unread(self, path: str, indices: list[int]) -> None:
        """Zero the weights that read these inputs of the layer at `path`. Call it before the cut."""
        self._zero(path, indices)

    def broken(self, cut: nn.Module, *, values: bool) -> str:
        """Return how `cut` differs from the dense network without the noted channels; empty if it does not.

        Args:
            cut: the network after the cut.
            values: compare values; else only that it runs and gives the same shapes.

        Raises:
            ModelError: the dense network itself does not run in float64.
        """
        if any(0 in tensor.shape for tensor in cut.parameters()):
            return "a layer would have no channels left"
        copy = float64_copy(cut)
        for inputs, seed in self._samples:
            try:
                wanted = outputs64(self._dense, inputs, seed)
            except Exception as error:
                if seed == 1:
                    raise ModelError(
                        "a cut could not be checked: the module does not run in float64 "
                        f"({first_line(error)[:160]})."
                    ) from error
                continue  # the dense network does not take another batch size either
            try:
                found = outputs64(copy, inputs, seed)
            except Exception as error:  # noqa: BLE001 - the user's forward may raise anything
                return f"{_DOES_NOT_RUN}: {first_line(error)[:160]}"
            if [t.shape for t in found] != [t.shape for t in wanted]:
                return "an output would change its shape"
            if values:
                difference = relative_difference(wanted, found)
                if not difference <= _TOLERANCE:
                    return f"the network computes something else without them (off by {difference:.1e})"
        return ""


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


def cut(
    base: nn.Module, inputs: BoundInputs, plan: CutPlan, *, one_by_one: bool, check: bool = True
) -> Cut:
    """Cut a copy of `base`.

    Args:
        base: with plain weights, in eval mode.
        inputs: for the trace and the checks.
        plan: what to cut.
        one_by_one: check after every group and roll back what breaks; else check once per step.
        check: False skips the checks, if only the size matters.
    """
    module = copy_module(base)
    result, dense = Cut(module), layer_widths(base)
    heads = head_counts(base, plan)
    for step in range(1, plan.spec.steps + 1):
        backup = copy_module(module) if step > 1 else None
        try:
            run, left = _step(result, inputs, plan, step, dense, heads, one_by_one, check=check)
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
    one_by_one: bool,
    *,
    check: bool,
) -> tuple[_Run, dict[str, int]]:
    """Cut channels in one step; return the last run, and the remaining heads."""
    module = result.module
    with tracing(module, inputs), torch.random.fork_rng(devices=[]):
        torch.manual_seed(step)  # seeds the random criterion
        accumulate(module, plan.importance, plan.loss)
        ratios, result.planned = shares(module, inputs, plan, step, dense)
        left = heads_left(heads, plan, step)
        apart = {path: one for path, one in ratios.items() if path not in plan.tied}
        run = _Run(result, inputs, plan, apart, left, check=check)
        (run.step_one_by_one if one_by_one else run.step_at_once)()
        if plan.tied and not result.failed and not run.stale:
            result.history += history_in(run.graph)
            together = {path: one for path, one in ratios.items() if path in plan.tied}
            run = _Run(result, inputs, plan, together, left, check=check)
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
        check: whether to check.
    """

    def __init__(
        self,
        result: Cut,
        inputs: BoundInputs,
        plan: CutPlan,
        ratios: Mapping[str, float],
        heads: Mapping[str, int],
        *,
        check: bool,
    ) -> None:
        self.inputs, self.plan, self.result, self.check = inputs, plan, result, check
        self.stale = False
        self.pruner = make_pruner(result.module, inputs, plan, heads=heads, ratios=ratios)
        self.graph = self.pruner.DG

    def step_at_once(self) -> None:
        """Cut every group of this step, then check."""
        module = self.result.module
        reference = DenseReference(module, self.inputs) if self.check else None
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
            before, reference = Snapshot(module, self.graph), DenseReference(module, self.inputs)
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
            if mixed and reason.startswith(_DOES_NOT_RUN):
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
            before = Snapshot(module, self.graph)
            reference = DenseReference(module, self.inputs) if self.check else None
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
            update_attention(module, list(self.plan.attention), self._heads()),
            update_norms(module),
            update_sizes(module, self.plan.sizes),
        )

    def _heads(self) -> dict[nn.Module, int]:
        heads: dict[nn.Module, int] = self.pruner.num_heads
        return heads
