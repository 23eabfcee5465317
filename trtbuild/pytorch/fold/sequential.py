"""The careful fold for a module that cannot be traced: neighbours in a plain ``nn.Sequential``.

One recorded run cannot prove that another input takes the same way. Inside a plain Sequential whose
children are called by nobody else it does: each child gets what the one before it gave.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import nn

from trtbuild.pytorch.fold.on_module import (
    ModuleFold,
    has_hooks,
    has_norm_forward,
    is_norm,
    is_plain_layer,
    norm_modules,
)
from trtbuild.pytorch.inputs import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["plan_sequential_folds"]


def plan_sequential_folds(
    module: nn.Module, inputs: BoundInputs, barred: Mapping[str, str]
) -> tuple[list[ModuleFold], dict[str, str]]:
    """Plan the folds of layer-norm neighbours inside plain Sequential containers.

    Args and result as for `plan_module_folds`.
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
    """How often each module is called in one run, and the rank of what it gives."""
    count: Counter[int] = Counter()
    ranks: dict[int, int] = {}

    def note(child: nn.Module, _arguments: Any, output: Any) -> None:
        count[id(child)] += 1
        ranks[id(child)] = output.dim() if hasattr(output, "dim") else -1

    handles = [child.register_forward_hook(note) for child in module.modules()]
    try:
        run(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return count, ranks
