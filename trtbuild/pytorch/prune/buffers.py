"""Turns buffers with one value per channel into parameters while channels are traced.

A frozen batch norm keeps scale and shift in buffers (as in torchvision's detectors), and a module may keep a
mean per channel. Torch-Pruning traces tensors that require gradients, so it sees these only as parameters.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.inputs import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["channel_buffers_as_parameters"]


@contextlib.contextmanager
def channel_buffers_as_parameters(module: nn.Module, inputs: BoundInputs) -> Iterator[None]:
    """In this block such buffers of `module` are parameters; afterwards they are buffers again, as cut."""
    owners = {path: list(owner._buffers) for path, owner in module.named_modules()}
    moved = _unwritten(module, inputs, _candidates(module))
    for path, name in moved:
        owner = module.get_submodule(path)
        owner._parameters[name] = nn.Parameter(owner._buffers.pop(name))
    try:
        yield
    finally:
        for path, name in moved:
            owner = module.get_submodule(path)
            left = owner._parameters.pop(name)
            owner._buffers[name] = None if left is None else left.detach()
        for path in {path for path, _ in moved}:
            buffers = module.get_submodule(path)._buffers
            for name in owners[path]:  # restore the original order
                buffers[name] = buffers.pop(name)


def _candidates(module: nn.Module) -> list[tuple[str, str]]:
    """Path and name of buffers that vary along one axis; the library itself handles torch's norms."""
    return [
        (path, name)
        for path, owner in module.named_modules()
        if not isinstance(owner, nn.modules.batchnorm._NormBase)
        for name, value in owner.named_buffers(recurse=False)
        if value.is_floating_point() and sum(size > 1 for size in value.shape) == 1
    ]


def _unwritten(
    module: nn.Module, inputs: BoundInputs, named: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Those of `named` that forward does not write; none if forward fails."""
    if not named:
        return []
    copy = copy_module(module, share_parameters=True)
    before = [copy.get_submodule(path)._buffers[name] for path, name in named]
    values = [None if one is None else one.clone() for one in before]
    arguments, keywords = sample(inputs, seed=0)
    try:
        with torch.no_grad():
            copy(*arguments, **keywords)
    except Exception:  # noqa: BLE001 - tracing the module reports the error
        return []
    return [
        (path, name)
        for (path, name), one, value in zip(named, before, values)
        if value is not None
        and copy.get_submodule(path)._buffers.get(name) is one
        and torch.equal(one, value)
    ]
