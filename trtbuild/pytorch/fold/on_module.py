"""Folds norms in the user's module, whose class, methods and hooks stay.

The layer gets new parameters and the norm becomes `nn.Identity`. A fold is possible in the module only if
all calls of the norm and all calls of the layer are folded in the same way. Other norms (a functional one,
one layer under two norms) are left to the graph passes, which handle each call separately.

In a module that cannot be traced, only neighbours in a plain ``nn.Sequential`` are folded: one
recorded run does not prove that another input takes the same path. In a plain Sequential whose children
have no other callers it does: each child gets the output of the one before it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from trtbuild.pytorch.aten import calls, module_path, state_names, tensor_of
from trtbuild.pytorch.fold.layers import (
    Affine,
    CannotFoldError,
    LayerCall,
    Weights,
    norm_affine,
    scaled_after,
    scaled_before,
)
from trtbuild.pytorch.fold.plan import Plan, norm_calls, plan_folds
from trtbuild.pytorch.layers import CONVOLUTIONS, TRANSPOSED
from trtbuild.pytorch.running import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.export import ExportedProgram
    from torch.fx import Node

    from trtbuild.pytorch.fold.plan import Fold
    from trtbuild.pytorch.inputs import BoundInputs

__all__ = [
    "LEFT_TO_PASSES",
    "ModuleFold",
    "fold_into_modules",
    "has_hooks",
    "has_norm_forward",
    "is_norm",
    "is_plain_layer",
    "norm_modules",
    "plan_module_folds",
    "plan_sequential_folds",
    "take_over",
]


LEFT_TO_PASSES = "left to the graph passes"
"""Part of the reason for a norm that can be folded in the graph, but not in the module."""

_LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
_NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward, _InstanceNorm.forward)


@dataclass(frozen=True)
class ModuleFold:
    """One norm module to be folded into one layer module, both by path."""

    norm: str
    layer: str
    side: Literal["after", "before"]


def is_norm(module: nn.Module) -> bool:
    """Return whether this is a BatchNorm, SyncBatchNorm or InstanceNorm, or a subclass."""
    return isinstance(module, _BatchNorm | _InstanceNorm)


def norm_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Return the norm modules by path, each once."""
    return {path: child for path, child in module.named_modules() if is_norm(child)}


def plan_module_folds(
    module: nn.Module, program: ExportedProgram, barred: Mapping[str, str]
) -> tuple[list[ModuleFold], dict[str, str]]:
    """Plan the folds that are possible in `module`.

    Args:
        module: the module that `program` was captured from.
        program: its graph.
        barred: paths of norms that must stay, each with its reason.

    Returns:
        The folds in the order in which to apply them, and the reason for each norm call that
        stays, by norm path (functional norms: by node name).
    """
    view = _Owners(module, program)
    reasons = {
        node: reason for node in norm_calls(program) if (reason := view.refusal(node, barred))
    }
    while True:
        plan = plan_folds(program, reasons)
        refused = _inexpressible(plan, view)
        if not refused:
            break
        reasons.update(refused)
    foldable = {fold.norm for fold in plan_folds(program, {}).folds}
    by_norm: dict[str, str] = {}
    for node in norm_calls(program):
        if node in plan.reasons:
            name = view.name(node)
            later = node in foldable and name not in barred
            by_norm.setdefault(name, plan.reasons[node] + (f"; {LEFT_TO_PASSES}" if later else ""))
    folds = [ModuleFold(view.name(f.norm), view.path(f.layer.node), f.side) for f in plan.folds]
    return list(dict.fromkeys(folds)), by_norm


class _Owners:
    """Maps the calls of the graph to the modules that make them."""

    def __init__(self, module: nn.Module, program: ExportedProgram) -> None:
        self.module = module
        self.program = program
        self.by_node = {node: self._find(node) for node in calls(program)}
        self.paths = {id(child): path for path, child in module.named_modules()}
        self.names = state_names(program)

    def _find(self, node: Node) -> nn.Module | None:
        try:
            return self.module.get_submodule(module_path(node))
        except AttributeError:  # a module that is not registered
            return None

    def path(self, node: Node) -> str:
        """Path of the module that made the call; one of them if it has several."""
        return str(self.paths.get(id(self.by_node[node]), ""))

    def name(self, node: Node) -> str:
        """Name of a norm call in the report: the norm's path, or the node if it is functional."""
        owner = self.by_node[node]
        return self.path(node) if owner is not None and is_norm(owner) else str(node.name)

    def refusal(self, norm: Node, barred: Mapping[str, str]) -> str:
        """Why this norm call cannot be removed from its module; empty if it can."""
        owner = self.by_node[norm]
        if owner is None or not is_norm(owner):
            return "it is a functional call, which a module cannot drop"
        if self.name(norm) in barred:
            return barred[self.name(norm)]
        read_elsewhere = self._is_read_elsewhere(norm.args[1:5], owner)
        causes = {
            f"its class {type(owner).__name__} has a forward of its own": not has_norm_forward(
                owner
            ),
            "it is in train mode": owner.training,
            "it carries a forward hook": has_hooks(owner),
            "its parameters are also used elsewhere": read_elsewhere,
        }
        return next((reason for reason, holds in causes.items() if holds), "")

    def layer_refusal(self, layer: LayerCall) -> str:
        """Why this layer's parameters cannot be replaced; empty if they can."""
        owner = self.by_node[layer.node]
        title = f"'{self.path(layer.node)}'" if owner is not None else "its layer"
        if owner is None or not is_plain_layer(owner):
            kind = type(owner).__name__ if owner is not None else "an unregistered module"
            return f"its layer is called by {title} ({kind}), which is not a plain layer"
        if has_hooks(owner):
            return f"its layer {title} carries a forward hook"
        if self._tensor(layer.weight) is not owner.weight:
            return f"the weight of {title} is computed"
        if self._is_read_elsewhere((layer.weight, layer.bias), owner):
            return f"the weight of {title} is also used outside of it"
        return ""

    def _tensor(self, node: object) -> torch.Tensor | None:
        name = self.names.get(getattr(node, "name", ""))
        if name is None:
            return None
        owner, _, attribute = name.rpartition(".")
        value = getattr(self.module.get_submodule(owner), attribute, None)
        return value if isinstance(value, torch.Tensor) else tensor_of(self.program, name)

    def _is_read_elsewhere(self, nodes: Iterable[object], owner: nn.Module) -> bool:
        """Whether another module's call reads these parameters; modules with tied ones do not count."""
        for node in nodes:
            tensor = self._tensor(node)
            for user in getattr(node, "users", ()):
                reader = self.by_node.get(user)
                if reader is owner:
                    continue
                own = () if reader is None else (*reader.parameters(False), *reader.buffers(False))
                if all(tensor is not other for other in own):
                    return True
        return False


def has_norm_forward(module: nn.Module) -> bool:
    """Return whether forward is torch's own, so that the norm does nothing else."""
    return type(module).forward in _NORM_FORWARDS


def has_hooks(module: nn.Module) -> bool:
    """Return whether a forward hook or pre-hook could change values."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_plain_layer(module: nn.Module | None) -> bool:
    """Return whether forward is torch's own, so that it uses only weight and bias."""
    for kind in _LAYERS:
        if isinstance(module, kind):
            own = type(module)
            convolves = getattr(own, "_conv_forward", None) is getattr(kind, "_conv_forward", None)
            return own.forward is kind.forward and convolves
    return False


def _inexpressible(plan: Plan, view: _Owners) -> dict[Node, str]:
    """The planned norm calls that cannot be folded in the module, with the reason."""
    planned = {fold.norm: fold for fold in plan.folds}
    refused = {f.norm: reason for f in plan.folds if (reason := view.layer_refusal(f.layer))}
    for norm in planned:
        same = [
            node for node in norm_calls(view.program) if view.by_node[node] is view.by_node[norm]
        ]
        if any(node not in planned for node in same):
            refused.setdefault(norm, "the same norm is also called where it cannot be folded")
    for calls_of_layer in _calls_by_owner(view).values():
        kinds = {_norms_of(node, plan.folds, view) for node in calls_of_layer}
        if len(kinds) > 1:
            path = view.path(calls_of_layer[0])
            for fold in plan.folds:
                if fold.layer.node in calls_of_layer:
                    refused.setdefault(
                        fold.norm,
                        f"its layer '{path}' is called several times, not always with this norm",
                    )
    return refused


def _calls_by_owner(view: _Owners) -> dict[int, list[Node]]:
    found: dict[int, list[Node]] = {}
    for node, owner in view.by_node.items():
        if owner is not None and LayerCall.of(node) is not None:
            found.setdefault(id(owner), []).append(node)
    return found


def _norms_of(layer: Node, folds: Iterable[Fold], view: _Owners) -> tuple[tuple[str, str], ...]:
    return tuple((view.name(fold.norm), fold.side) for fold in folds if fold.layer.node is layer)


def fold_into_modules(module: nn.Module, folds: Iterable[ModuleFold]) -> None:
    """Apply `folds` to the float64 copy of a module, in place.

    Raises:
        CannotFoldError: the values do not allow it; the error names the norm.
    """
    norms = {fold.norm: module.get_submodule(fold.norm) for fold in folds}
    for fold in folds:
        norm = norms[fold.norm]
        try:
            affine = norm_affine(
                norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
            )
            _scale_layer(module.get_submodule(fold.layer), affine, fold.side)
        except CannotFoldError as refusal:
            raise CannotFoldError(str(refusal), norm=fold.norm) from None
    for norm in norms.values():
        _replace(module, norm, nn.Identity().eval())


def take_over(module: nn.Module, folded: nn.Module, folds: Iterable[ModuleFold]) -> None:
    """Copy the folded weights from the float64 copy to `module`, in the module's dtypes, in place.

    Raises:
        CannotFoldError: a weight is not finite in its dtype; the error names the norm, and `module` does not
            change.
    """
    cast = {}
    for fold in folds:
        layer, source = module.get_submodule(fold.layer), folded.get_submodule(fold.layer)
        try:
            cast[fold.layer] = Weights(source.weight, source.bias).to(layer.weight.dtype)
        except CannotFoldError as refusal:
            raise CannotFoldError(str(refusal), norm=fold.norm) from None
    for path, weights in cast.items():
        _give(module.get_submodule(path), weights)
    for norm in [module.get_submodule(fold.norm) for fold in folds]:
        _replace(module, norm, nn.Identity().eval())


def _scale_layer(layer: nn.Module, affine: Affine, side: str) -> None:
    transposed = isinstance(layer, TRANSPOSED)
    old = Weights(layer.weight, layer.bias, getattr(layer, "groups", 1), transposed)
    _give(layer, (scaled_after if side == "after" else scaled_before)(old, affine))


def _give(layer: nn.Module, weights: Weights) -> None:
    """Set new parameters instead of new values: another layer may be tied to the old ones."""
    trained = layer.weight.requires_grad
    layer.weight = nn.Parameter(weights.weight.detach(), requires_grad=trained)
    layer.bias = nn.Parameter(weights.bias, requires_grad=trained)


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is registered."""
    for parent in list(root.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new


def plan_sequential_folds(
    module: nn.Module, inputs: BoundInputs, barred: Mapping[str, str]
) -> tuple[list[ModuleFold], dict[str, str]]:
    """Plan the folds of neighbouring layers and norms inside plain Sequential containers.

    Arguments and result as in `plan_module_folds`.
    """
    reasons = dict.fromkeys(norm_modules(module), "the module cannot be traced, and the norm does not "
                            "directly follow a layer in an nn.Sequential")  # fmt: skip
    reasons |= barred
    count, ranks = _record(module, inputs)
    owners = Counter(id(child) for parent in module.modules() for child in parent._modules.values())
    paths = {id(child): path for path, child in module.named_modules()}
    folds = []
    for container in module.modules():
        if type(container) is not nn.Sequential or has_hooks(container):
            continue
        for layer, norm in zip(list(container)[:-1], list(container)[1:]):
            path = paths.get(id(norm), "")
            if not is_norm(norm) or path in barred or not is_plain_layer(layer):
                continue
            reason = _refusal(container, layer, norm, owners, count, ranks)
            if reason:
                reasons[path] = reason
                continue
            folds.append(ModuleFold(path, paths[id(layer)], "after"))
            del reasons[path]
    return folds, reasons


def _refusal(
    container: nn.Module,
    layer: nn.Module,
    norm: nn.Module,
    owners: Mapping[int, int],
    count: Mapping[int, int],
    ranks: Mapping[int, int],
) -> str:
    times = count[id(container)]
    causes = {
        "it or its layer is registered in several places": owners[id(layer)] + owners[id(norm)]
        != 2,
        "it or its layer carries a forward hook": has_hooks(layer) or has_hooks(norm),
        "it is in train mode": norm.training,
        "it has no running statistics": norm.running_mean is None,
        "it has a forward of its own": not has_norm_forward(norm),
        "it or its layer is also called outside of the nn.Sequential": not (
            count[id(layer)] == count[id(norm)] == times
        ),
        "it was not called in a run on the sample input": times == 0,
        "its layer is an nn.Linear whose features lie on the last axis": isinstance(
            layer, nn.Linear
        )
        and ranks.get(id(layer)) != 2,
    }
    return next((reason for reason, holds in causes.items() if holds), "")


def _record(module: nn.Module, inputs: BoundInputs) -> tuple[Counter[int], dict[int, int]]:
    """How often each module is called in one run, and the rank of its output."""
    count: Counter[int] = Counter()
    ranks: dict[int, int] = {}

    def note(child: nn.Module, _arguments: Any, output: Any) -> None:
        count[id(child)] += 1
        ranks[id(child)] = output.dim() if hasattr(output, "dim") else -1

    with contextlib.ExitStack() as hooks:
        for child in module.modules():
            hooks.enter_context(child.register_forward_hook(note))
        run(module, inputs)
    return count, ranks
