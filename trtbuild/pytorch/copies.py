"""Copies of modules: in eval mode throughout, with plain weights.

Exporting in train mode gives a network that is random (Dropout) or silently different (BatchNorm).
"""

from __future__ import annotations

import copy
import functools
import re
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from trtbuild.errors import ModelError
from trtbuild.plugins import foreign_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


__all__ = [
    "computed_weights",
    "copy_module",
    "enforce_eval",
    "hidden_modules",
    "in_train_mode",
    "make_weights_plain",
    "share_again",
    "shared_parameters",
    "unwrapped",
]

_NOT_COPIED = (
    "the module keeps something that Python cannot copy, such as a lock, an open file or a generator; take "
    "it out before the module is given. Copying raised "
)


_MODULE_INTERNALS = frozenset(nn.Module().__dict__)


def enforce_eval(module: nn.Module) -> list[str]:
    """Put `module` and its hidden modules into eval mode, and check every flag.

    Returns:
        Sentences about modules that ``module.eval()`` did not reach.

    Raises:
        ModelError: a module stays in train mode, for example because it overrides ``train``.
    """
    module.eval()
    notes = []
    for path, hidden in hidden_modules(module).items():
        if hidden.training:
            notes.append(
                f"'{path}' was not reached by eval(); it was put into eval mode on its own."
            )
        hidden.eval()
    stubborn = in_train_mode(module)
    if stubborn:
        raise ModelError(
            f"{', '.join(stubborn[:5])}: still in train mode after eval(). A class that overrides "
            "train() keeps it there; an export in train mode would be another model."
        )
    return notes


def in_train_mode(module: nn.Module) -> list[str]:
    """Return the paths of the modules, including hidden ones, whose ``training`` flag is set."""
    found = [path or "the module" for path, child in module.named_modules() if child.training]
    for path, hidden in hidden_modules(module).items():
        found += [
            f"{path}.{inner}".rstrip(".") for inner, m in hidden.named_modules() if m.training
        ]
    return found


_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}
"""By name, since the class of ``torch.compile`` takes seconds to import."""


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, ``DataParallel`` or ``AveragedModel``, else `module`."""
    while type(module).__module__.startswith("torch.") and type(module).__name__ in _WRAPPERS:
        module = getattr(module, _WRAPPERS[type(module).__name__])
    return module


def hidden_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules in lists, tuples, sets or dicts of `module`, which torch does not register."""
    known = {id(child) for child in module.modules()}
    found: dict[str, nn.Module] = {}
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name in _MODULE_INTERNALS:
                continue
            for where, child in _modules_in(value, f"{path}.{name}".lstrip(".")):
                if id(child) not in known:
                    known.add(id(child))
                    found[where] = child
    return found


def _modules_in(value: Any, where: str, depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield where, value
    elif isinstance(value, dict) and depth < 4:
        for key, item in value.items():
            yield from _modules_in(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth < 4:
        for index, item in enumerate(value):
            yield from _modules_in(item, f"{where}[{index}]", depth + 1)


def copy_module(
    module: nn.Module, dtype: torch.dtype | None = None, *, share_parameters: bool = False
) -> nn.Module:
    """Deep-copy `module`, including weight normalization and pruning masks of the old kind.

    Those keep a computed, non-leaf tensor as a plain attribute, which `copy.deepcopy` refuses.

    Args:
        module: the module.
        dtype: the type of every floating-point parameter and buffer of the copy; None keeps each.
        share_parameters: use the same parameters in the copy, which then costs no memory. What forward writes
            to buffers and attributes (a grid for the last shape, a position table) still stays in the copy.

    Raises:
        ModelError: the module has something that cannot be copied.
    """
    memo = _memo_of(module, dtype, share_parameters=share_parameters)
    functions = _own_functions(module)
    memo.update((id(one), _with_empty_cells(one)) for one in functions)
    with foreign_code(ModelError, _NOT_COPIED):
        copied = copy.deepcopy(module, memo)
    for function in functions:
        _fill(function, memo)
    for child in _all_modules(copied):
        for name, value in vars(child).items():
            if isinstance(value, types.MethodType) and value.__func__ in functions:
                vars(child)[name] = types.MethodType(memo[id(value.__func__)], value.__self__)
        if parametrize.is_parametrized(child):
            _give_own_class(child)
    if dtype is not None:
        for one in (copied, *hidden_modules(copied).values()):
            one.to(dtype)
    return copied


def _memo_of(
    module: nn.Module, dtype: torch.dtype | None, *, share_parameters: bool
) -> dict[int, Any]:
    """The memo of `copy.deepcopy`: object id -> the copy to use."""
    memo: dict[int, Any] = {}
    if share_parameters:
        memo = {id(one): one for child in _all_modules(module) for one in child.parameters(False)}
    elif dtype is not None:
        for parameter in module.parameters():
            if parameter.is_floating_point() and type(parameter) is nn.Parameter:
                cast = parameter.detach().to(dtype, copy=True)
                memo[id(parameter)] = nn.Parameter(cast, requires_grad=parameter.requires_grad)
    for child in _all_modules(module):
        for value in torch.utils._pytree.tree_leaves(list(vars(child).values())):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return memo


def _own_functions(module: nn.Module) -> list[types.FunctionType]:
    """Functions stored in `module`, including hooks, that refer to enclosing variables.

    A deep copy shares functions. One that refers to ``self`` would run layers of the original module, and
    write into it.
    """
    leaves = torch.utils._pytree.tree_leaves
    waiting = [one for child in _all_modules(module) for one in leaves(list(vars(child).values()))]
    found: dict[int, types.FunctionType] = {}
    while waiting:
        value = _function_of(waiting.pop())
        if isinstance(value, types.FunctionType) and id(value) not in found:
            around = _around(value)
            if around:
                found[id(value)] = value
                waiting += around  # a function may call another, which refers to ``self``
    return list(found.values())


def _around(function: types.FunctionType) -> list[Any]:
    """The values that a function refers to: its closure cells, and modules and their methods as defaults.

    Classes are left out: every method that calls ``super()`` refers to its own.
    """
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a cell is still empty
        return []
    given = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    own = [one for one in given if isinstance(getattr(one, "__self__", one), nn.Module)]
    return [*(one for one in cells if not isinstance(one, type)), *own]


def _function_of(value: Any) -> Any:
    """The function that a method, or a `functools.partial`, calls; `value` if it is neither."""
    while isinstance(value, types.MethodType | functools.partial):
        value = value.__func__ if isinstance(value, types.MethodType) else value.func
    return value


def _with_empty_cells(function: types.FunctionType) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    copied = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, cells
    )
    vars(copied).update(vars(function))
    return copied


def _fill(function: types.FunctionType, memo: dict[int, Any]) -> None:
    """Let the copy of a function refer to copies of its values, where there are copies."""

    def now(value: Any) -> Any:
        if isinstance(value, types.MethodType):
            return types.MethodType(now(value.__func__), now(value.__self__))
        return memo.get(id(value), value)

    copied = memo[id(function)]
    for old, new in zip(function.__closure__ or (), copied.__closure__ or ()):
        new.cell_contents = now(old.cell_contents)
    if function.__defaults__:
        copied.__defaults__ = tuple(map(now, function.__defaults__))
    if function.__kwdefaults__:
        copied.__kwdefaults__ = {name: now(one) for name, one in function.__kwdefaults__.items()}


def _give_own_class(module: nn.Module) -> None:
    """Give a parametrized module its own class, which copies otherwise share with the original.

    The parametrized weight is a property of a class made for the module. Removing the parametrization
    deletes the property, which would break the original module.
    """
    shared = type(module)
    content = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _all_modules(module: nn.Module) -> Iterator[nn.Module]:
    yield from module.modules()
    for hidden in hidden_modules(module).values():
        yield from hidden.modules()


def make_weights_plain(module: nn.Module) -> list[str]:
    """Evaluate every computed weight once and store the result as a plain parameter, in place.

    Zeros of masks become permanent; weight and spectral norm keep their present value. Weights that are made
    of the same parameter stay tied if their results are equal.

    Returns:
        A line for each weight: its name, and what computed it.
    """
    done = []
    shared = [tuple(map(_plain_name, names)) for names in shared_parameters(module)]
    for path, child, name, kind in list(computed_weights(module)):
        if kind == "parametrization":
            _untie(child.parametrizations[name])
            parametrize.remove_parametrizations(child, name, leave_parametrized=True)
        elif kind == "mask":
            prune.remove(child, name)
        elif kind == "weight norm":
            remove_weight_norm(child, name)
        else:
            remove_spectral_norm(child, name)
            _forget_spectral_norm(child, name)
        done.append(f"{path}.{name}".lstrip(".") + f": {kind} evaluated")
    if done:
        share_again(module, shared)
    return done


def _plain_name(name: str) -> str:
    """The name that a parameter has once its parametrization is evaluated."""
    return re.sub(r"\bparametrizations\.(\w+)\.original$", r"\1", name)


def _untie(parametrizations: nn.Module) -> None:
    """Give a parametrized weight an original of its own: torch writes the result into it, tied or not."""
    original = getattr(parametrizations, "original", None)
    if isinstance(original, nn.Parameter):
        copied = nn.Parameter(original.detach().clone(), requires_grad=original.requires_grad)
        parametrizations.original = copied


def _forget_spectral_norm(module: nn.Module, name: str) -> None:
    """Remove the hook that torch leaves behind, with which plain weights cannot be loaded."""
    hooks = module._load_state_dict_pre_hooks
    for key, wrapped in list(hooks.items()):
        hook = getattr(wrapped, "hook", wrapped)
        if isinstance(hook, SpectralNormLoadStateDictPreHook) and hook.fn.name == name:
            del hooks[key]


def computed_weights(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, str]]:
    """Yield path, layer, parameter name and kind of every computed weight; the kind of masks is ``mask``."""
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


def shared_parameters(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return all names of each parameter that has several (tied weights)."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(found) for found in names.values() if len(found) > 1)


def share_again(module: nn.Module, shared: Sequence[Sequence[str]]) -> None:
    """Tie the parameters of each tuple of `shared` again, in place, if they are still equal."""
    known = dict(module.named_parameters(remove_duplicate=False))
    for first, *others in shared:
        for name in others:
            if first in known and name in known and torch.equal(known[first], known[name]):
                owner, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(owner), attribute, known[first])
