"""Calls the user's own functions that train and evaluate a module, and checks their results."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import math
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from trtbuild.errors import OptionError
from trtbuild.plugins import foreign_code, import_named
from trtbuild.pytorch.copies import copy_module, enforce_eval, make_weights_plain, unwrapped
from trtbuild.pytorch.session_module import SessionModule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["evaluated", "name_of", "seed_all", "the_function", "trained", "weights_digest"]

_LOG = logging.getLogger(__name__)


def the_function(given: Any) -> Callable[..., Any]:
    """Return the function that the user named or passed.

    Raises:
        OptionError: it cannot be imported, or is not callable.
    """
    found = import_named(given, OptionError) if isinstance(given, str) else given
    if not callable(found):
        raise OptionError(f"'{name_of(given)}' is a {type(found).__name__}, not a function.")
    called: Callable[..., Any] = found
    return called


def name_of(given: Any) -> str:
    """Return the name of such a function for messages."""
    return given if isinstance(given, str) else str(getattr(given, "__qualname__", repr(given)))


def seed_all(seed: int) -> None:
    """Seed torch, NumPy and Python, so that a step's result does not depend on earlier steps."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the user's code may draw from it
    random.seed(seed)


def weights_digest(module: nn.Module) -> str:
    """Return a SHA-256 of the names and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def trained(
    train: Callable[..., Any], name: str, module: nn.Module, extras: Mapping[str, Any] | None = None
) -> nn.Module:
    """Let the user's function train the module; return it on the CPU, in eval mode, in its original types.

    Global changes by the function (torch's default type, whether gradients are on, the current directory)
    are undone afterwards.

    Args:
        train: called with the module; trains it in place, or returns it, perhaps in a wrapper of torch. Other
            results, such as a loss, are ignored.
        name: of the function, for messages.
        module: trained in place.
        extras: more arguments by name; ``teacher`` must be one of the function's parameters, the others
            are passed if they are.

    Raises:
        OptionError: the function raised, lacks the parameter ``teacher``, returned another module, changed
            layers, or made finite weights NaN or infinite.
    """
    parameters = _parameters(train)
    extras = extras or {}
    if "teacher" in extras and parameters is not None and "teacher" not in parameters:
        raise OptionError(
            f"the training '{name}' has no parameter 'teacher', so there is none to learn from; write "
            "train(module, teacher)."
        )
    given = {key: v for key, v in extras.items() if parameters is None or key in parameters}
    form, infinite = _form_of(module), _infinite_in(module)
    with _process_as_before(), foreign_code(OptionError, f"the training '{name}' raised "):
        answer = train(module, **given)
    if isinstance(answer, nn.Module):
        answer = unwrapped(answer)
        if type(answer) is not type(module):
            raise OptionError(
                f"the training '{name}' returned a {type(answer).__name__}; it should train the module that "
                "it is given in place, or return it."
            )
        module = answer
    for path, one in _tensors(module):
        if one.is_meta:
            raise OptionError(f"the training '{name}' left '{path}' without values (device meta).")
    module.to("cpu")
    if any(one.is_inference() for _, one in _tensors(module)):
        module = copy_module(module)  # copies are ordinary tensors
    _check_form(form, _form_of(module), name)
    _back_to(form, module, name)
    for path in [one for one in _infinite_in(module) if one not in infinite]:
        raise OptionError(
            f"the training '{name}' left NaN or infinite values in '{path}': a smaller learning rate may "
            "do."
        )
    enforce_eval(module)
    return module


@contextlib.contextmanager
def _process_as_before() -> Iterator[None]:
    """Restore the global settings that a user's function may change."""
    kind, folder = torch.get_default_dtype(), Path.cwd()
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            torch.set_default_dtype(kind)
            os.chdir(folder)


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Names and values of the parameters and buffers."""
    return [*module.named_parameters(), *module.named_buffers()]


def _back_to(form: Mapping[str, _Form], module: nn.Module, name: str) -> None:
    """Restore the types of floating-point values, in place: an engine is not built from float16 weights."""
    changed = {
        path: form[path].dtype
        for path, one in module.state_dict().items()
        if path in form and one.is_floating_point() and one.dtype is not form[path].dtype
    }
    for path, one in _tensors(module):
        if path in changed:
            one.data = one.data.to(changed[path])
    if changed:
        now = str(next(iter(changed.values())))[6:]
        _LOG.warning(
            "the training '%s' left weights in another type; they were converted back to %s.",
            name,
            now,
        )


def _parameters(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names of a function's parameters; None if it takes any name."""
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    if any(one.kind is one.VAR_KEYWORD for one in given):
        return None
    return frozenset(one.name for one in given)


class _Form(NamedTuple):
    """Shape and type that a saved tensor needs to be loaded again."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def _form_of(module: nn.Module) -> dict[str, _Form]:
    """Name -> form of every tensor in a module's state dict."""
    plain = copy_module(module)
    make_weights_plain(plain)
    return {path: _Form(tuple(one.shape), one.dtype) for path, one in plain.state_dict().items()}


def _check_form(before: Mapping[str, _Form], after: Mapping[str, _Form], name: str) -> None:
    """Refuse changed layers: the saved weights would not load into the factory's module."""
    for path in sorted({*before, *after}):
        was, now = (one[path].shape if path in one else None for one in (before, after))
        if was != now:
            done = "added" if was is None else "removed" if now is None else f"made {list(now)} of"
            shape = f", which was {list(was)}" if was is not None and now is not None else ""
            raise OptionError(
                f"the training '{name}' {done} '{path}'{shape}; it should train weights, and leave layers as "
                "they are."
            )


def _infinite_in(module: nn.Module) -> list[str]:
    """Paths of parameters and buffers with NaN or infinite values, which attention masks may have."""
    return [
        path
        for path, tensor in _tensors(module)
        if tensor.is_floating_point() and not bool(tensor.detach().isfinite().all())
    ]


def evaluated(evaluate: Callable[..., Any], name: str, module: nn.Module, what: str) -> float:
    """Return the value that the user's function gives to `module`.

    Args:
        evaluate: called with a copy of the module, without gradients; returns a number.
        name: of the function, for messages.
        module: in eval mode.
        what: the module's description, for messages.

    Raises:
        OptionError: the function raised, or did not return a finite number.
    """
    judged = module if isinstance(module, SessionModule) else copy_module(module)
    with (
        _process_as_before(),
        foreign_code(OptionError, f"the evaluation '{name}' of the {what} raised "),
        torch.no_grad(),
    ):
        answer = evaluate(judged)
    judged.eval()
    is_number = isinstance(answer, int | float) or getattr(answer, "shape", None) == ()
    value = float(answer) if is_number and not isinstance(answer, bool) else math.nan
    if not math.isfinite(value):
        shown = f"{answer!r:.60}" if is_number else f"a {type(answer).__name__}"
        raise OptionError(
            f"the evaluation '{name}' returned {shown} of the {what}; it should return a finite number, "
            "higher is better."
        )
    return value
