"""Copies of modules, and weights that are computed made into plain ones."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from trtbuild.pytorch.evalmode import hidden_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["computed_weights", "copy_module", "make_weights_plain"]


def copy_module(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Deep-copy `module`, weight normalisation and pruning masks of the old kind included.

    Those keep a computed, non-leaf tensor as a plain attribute, which `copy.deepcopy` refuses.

    Args:
        module: the module.
        dtype: the type of every floating-point parameter and buffer of the copy; None keeps each.
    """
    memo: dict[int, object] = {}
    if dtype is not None:
        for parameter in module.parameters():
            if parameter.is_floating_point() and type(parameter) is nn.Parameter:
                cast = parameter.detach().to(dtype, copy=True)
                memo[id(parameter)] = nn.Parameter(cast, requires_grad=parameter.requires_grad)
    for child in _all_modules(module):
        for value in vars(child).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    copied = copy.deepcopy(module, memo)
    for child in _all_modules(copied):
        if parametrize.is_parametrized(child):
            _give_own_class(child)
    return copied if dtype is None else copied.to(dtype)


def _give_own_class(module: nn.Module) -> None:
    """Undo the sharing of a parametrized module's class between copies.

    The parametrized weight is a property of a class made for the module. Removing the parametrization
    deletes the property, so without this it would break the module that was copied.
    """
    shared = type(module)
    content = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _all_modules(module: nn.Module) -> Iterator[nn.Module]:
    yield from module.modules()
    for hidden in hidden_modules(module).values():
        yield from hidden.modules()


def computed_weights(module: nn.Module) -> list[str]:
    """Names of the parameters that are computed from others: masks, weight norm, spectral norm."""
    return [f"{path}.{name}".lstrip(".") for path, _, name, _ in _computed(module)]


def make_weights_plain(module: nn.Module) -> list[str]:
    """Evaluate every computed weight once and keep the value as a plain parameter, in place.

    A mask's zeros become permanent; weight and spectral norm keep their present value.

    Returns:
        A line for each weight: its name, and what computed it.
    """
    done = []
    for path, child, name, kind in list(_computed(module)):
        if kind == "parametrization":
            parametrize.remove_parametrizations(child, name, leave_parametrized=True)
        elif kind == "mask":
            prune.remove(child, name)
        elif kind == "weight norm":
            remove_weight_norm(child, name)
        else:
            remove_spectral_norm(child, name)
        done.append(f"{path}.{name}".lstrip(".") + f": {kind} evaluated")
    return done


def _computed(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, str]]:
    """Path, module, parameter name and kind of every computed weight."""
    for path, child in module.named_modules():
        if parametrize.is_parametrized(child):
            for name in list(child.parametrizations):
                yield path, child, name, "parametrization"
        for hook in list(child._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                yield path, child, hook._tensor_name, "mask"
            elif isinstance(hook, WeightNorm):
                yield path, child, hook.name, "weight norm"
            elif isinstance(hook, SpectralNorm):
                yield path, child, hook.name, "spectral norm"
