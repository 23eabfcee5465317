"""One run of Torch-Pruning over a copy, all groups at once or one by one, and the check of what it cut.

Is a cut network what it should be? Shapes on two inputs, values against zeroed channels.

Removing a channel is the same as multiplying what reads it by zero. So the dense network with the
readers' weights of the removed channels at zero must compute what the cut network computes. That finds
what shapes do not: a channel shuffle runs with half of the channels, and is wrong.

It holds exactly unless a norm or attention mixes the channels (`dependency.is_mixer`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from torch import nn

from trtbuild.errors import ModelError
from trtbuild.pytorch.copies import copy_module, float64_copy, outputs64, relative_difference
from trtbuild.pytorch.inputs import other_batch
from trtbuild.pytorch.prune.dependency import forward_arguments, is_mixer, tracing, update_attention
from trtbuild.pytorch.prune.groups import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune.dependency import Attention
    from trtbuild.pytorch.spec import PruneSpec

__all__ = ["Cut", "CutPlan", "DenseReference", "Snapshot", "cut"]


_TOLERANCE = 1e-9
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Snapshot:
    """The attributes and tensors of all modules, to go back to.

    Torch-Pruning puts new tensors in place of old ones and never writes into them, so references are
    enough.
    """

    def __init__(self, module: nn.Module) -> None:
        self._states = [
            (child, dict(child.__dict__), dict(child._parameters), dict(child._buffers))
            for child in module.modules()
        ]

    def restore(self) -> None:
        """Put everything back."""
        for child, attributes, parameters, buffers in self._states:
            child.__dict__.clear()
            child.__dict__.update(attributes)
            child._parameters = parameters
            child._buffers = buffers


class DenseReference:
    """The dense network, to hold a cut one against."""

    def __init__(self, dense: nn.Module, inputs: BoundInputs) -> None:
        self._dense = float64_copy(dense)
        self._samples = [(inputs, 1), *((other, 2) for other in other_batch(inputs))]
        # Original numbers of the input channels that a layer still has.
        self._survivors: dict[str, torch.Tensor] = {}

    def note_removed(self, graph: Any, group: Any) -> None:
        """Zero, in the dense network, what reads the channels of `group`. Call it before the cut."""
        for item in group:
            layer = item.dep.target.module
            reads = graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                self._zero(str(graph._module2name[layer]), [int(index) for index in item.idxs])

    def _zero(self, path: str, indices: list[int]) -> None:
        layer = self._dense.get_submodule(path)
        groups = getattr(layer, "groups", 1)
        depthwise = groups > 1 and groups == layer.weight.shape[0] * (
            layer.weight.shape[1] if isinstance(layer, _TRANSPOSED) else 1
        )
        if depthwise:
            return  # a depthwise layer passes its channel on; whoever reads that is zeroed
        inputs = layer.weight.shape[0 if isinstance(layer, _TRANSPOSED) else 1]
        inputs *= 1 if isinstance(layer, _TRANSPOSED) else groups
        survivors = self._survivors.get(path, torch.arange(inputs))
        gone = survivors[indices]
        keep = torch.ones(len(survivors), dtype=torch.bool)
        keep[indices] = False
        self._survivors[path] = survivors[keep]
        with torch.no_grad():
            if isinstance(layer, _TRANSPOSED):
                layer.weight[gone] = 0
            else:
                grouped = layer.weight.view(groups, -1, *layer.weight.shape[1:])
                for channel in gone.tolist():
                    size = layer.weight.shape[1]
                    grouped[channel // size, :, channel % size] = 0

    def broken(self, cut: nn.Module, *, values: bool) -> str:
        """Why `cut` is not the dense network without the noted channels; empty when it is.

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
                        f"({str(error).splitlines()[0][:160]})."
                    ) from error
                continue  # the dense network does not take another batch size either
            try:
                found = outputs64(copy, inputs, seed)
            except Exception as error:  # noqa: BLE001 - the user's forward may raise anything
                return f"the network does not run without them: {str(error).splitlines()[0][:160]}"
            if [t.shape for t in found] != [t.shape for t in wanted]:
                return "an output would change its shape"
            if values:
                difference = relative_difference(wanted, found)
                if not difference <= _TOLERANCE:
                    return f"the network computes something else without them (off by {difference:.1e})"
        return ""


@dataclass(frozen=True)
class CutPlan:
    """What to cut and how.

    Attributes:
        spec: the user's wish.
        importance: ranks the channels of a group.
        round_to: remaining widths are multiples of this.
        kept: layer path -> why it keeps its width.
        ratios: layer path -> its own ratio.
        attention: blocks with heads.
        loss: gives the loss whose gradients rank channels, or None.
        after_step: fine-tunes between steps: ``after_step(module, step, steps)``, or None.
    """

    spec: PruneSpec
    importance: Any
    round_to: int
    kept: Mapping[str, str]
    ratios: Mapping[str, float]
    attention: tuple[Attention, ...]
    loss: Callable[[nn.Module], torch.Tensor] | None = None
    after_step: Callable[[nn.Module, int, int], None] | None = None


@dataclass
class Cut:
    """What came of one run.

    Attributes:
        module: the cut network.
        history: Torch-Pruning's record: layer path, output side or not, channel numbers.
        heads: module path -> attribute -> new value, of attention blocks.
        culprits: layer path -> what cutting its group broke; those groups were rolled back.
        mixed: whether a group was cut that changes the values of others.
        failed: why all cuts together are wrong; empty when right or when cut one by one.
    """

    module: nn.Module
    history: list[tuple[str, bool, list[int]]] = field(default_factory=list)
    heads: dict[str, dict[str, int]] = field(default_factory=dict)
    culprits: dict[str, str] = field(default_factory=dict)
    mixed: bool = False
    failed: str = ""


def cut(base: nn.Module, inputs: BoundInputs, plan: CutPlan, *, one_by_one: bool) -> Cut:
    """Cut a copy of `base`.

    Args:
        base: with plain weights, in eval mode.
        inputs: of the trace and the checks.
        plan: what to cut.
        one_by_one: check after every group and roll back what breaks; else check once a step.
    """
    module = copy_module(base)
    run = _Run(module, inputs, plan)
    for step in range(1, plan.spec.steps + 1):
        backup = copy_module(module) if step > 1 else None
        _accumulate(module, plan)
        with tracing(module), torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)  # the random criterion
            (run.step_one_by_one if one_by_one else run.step_at_once)()
        if run.result.failed and backup is not None:
            run.result.module, run.result.failed = backup, ""
            run.result.culprits[""] = f"step {step} broke the network; it stays at step {step - 1}"
            break
        if run.result.failed or run.stale:
            break
        if plan.after_step is not None:
            plan.after_step(module, step, plan.spec.steps)
            module.eval()
    run.result.history = [
        (str(name), bool(out), [int(index) for index in indices])
        for name, out, indices in run.pruner.pruning_history()
    ]
    return run.result


def _accumulate(module: nn.Module, plan: CutPlan) -> None:
    """Gradients of the user's loss, for criteria that rank by them."""
    if plan.loss is not None:
        module.zero_grad()
        with torch.enable_grad():
            plan.loss(module).backward()


class _Run:
    """A pruner bound to the network that it cuts."""

    def __init__(self, module: nn.Module, inputs: BoundInputs, plan: CutPlan) -> None:
        self.inputs, self.plan = inputs, plan
        self.result = Cut(module)
        self.stale = False
        with tracing(module):
            self.pruner = _make_pruner(module, inputs, plan)
        self.graph = self.pruner.DG

    def step_at_once(self) -> None:
        """Cut every group of this step, then check."""
        module = self.result.module
        reference = DenseReference(module, self.inputs)
        try:
            for group in self.pruner.step(interactive=True):
                self.result.mixed |= is_mixer(group, self.pruner.num_heads)
                reference.note_removed(self.graph, group)
                group.prune()
            self._update_heads()
        except Exception as error:  # noqa: BLE001 - the library fails in many ways
            self.result.failed = f"{type(error).__name__}: {error}"
            return
        self.result.failed = reference.broken(module, values=not self.result.mixed)

    def step_one_by_one(self) -> None:
        """Cut group by group; what breaks something is rolled back and named."""
        module = self.result.module
        for group in self.pruner.step(interactive=True):
            root = str(self.graph._module2name[group[0].dep.target.module])
            parameters = any(isinstance(item.dep.target.module, nn.Parameter) for item in group)
            mixed = is_mixer(group, self.pruner.num_heads)
            before, reference = Snapshot(module), DenseReference(module, self.inputs)
            try:
                reference.note_removed(self.graph, group)
                group.prune()
                self._update_heads()
                reason = reference.broken(module, values=not mixed)
            except Exception as error:  # noqa: BLE001 - the library fails in many ways
                reason = f"Torch-Pruning cannot cut it ({type(error).__name__}: {error})"
            if not reason:
                self.result.mixed |= mixed
                continue
            before.restore()
            self.result.culprits[root] = reason
            if parameters:  # the graph knows the parameter that is gone again
                self.stale = True
                return

    def _update_heads(self) -> None:
        changed = update_attention(self.result.module, list(self.plan.attention), self._heads())
        for path, values in changed.items():
            self.result.heads.setdefault(path, {}).update(values)

    def _heads(self) -> dict[nn.Module, int]:
        heads: dict[nn.Module, int] = self.pruner.num_heads
        return heads


def _make_pruner(module: nn.Module, inputs: BoundInputs, plan: CutPlan) -> Any:
    spec = plan.spec
    heads = {
        module.get_submodule(path): getattr(module.get_submodule(block.path), block.count)
        for block in plan.attention
        for path in block.projections
    }
    ratios = dict(plan.ratios)
    if spec.head_ratio > 0:  # the library looks at heads only where channels are to go as well
        for block in plan.attention:
            for path in block.projections:
                ratios[path] = max(ratios.get(path, spec.ratio), 1e-6)
    return tp.pruner.BasePruner(
        module,
        importance=plan.importance,
        global_pruning=spec.scope != "local",
        isomorphic=spec.scope == "isomorphic",
        pruning_ratio=spec.ratio,
        pruning_ratio_dict={module.get_submodule(path): r for path, r in ratios.items()},
        max_pruning_ratio=spec.max_ratio,
        iterative_steps=spec.steps,
        ignored_layers=[module.get_submodule(path) for path in plan.kept],
        round_to=plan.round_to,
        # Given, because the library's default dictionaries are shared by all pruners of a process.
        in_channel_groups={},
        out_channel_groups={},
        num_heads=heads,
        prune_num_heads=spec.head_ratio > 0,
        # Whole heads and channels of each head at once lead to widths that no head count divides.
        prune_head_dims=spec.head_ratio == 0,
        head_pruning_ratio=spec.head_ratio,
        root_module_types=list(LAYERS),
        **forward_arguments(inputs),
    )
