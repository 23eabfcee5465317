"""Plug-ins that rewrite blocks of a network family so that their channels can be pruned, checked here.

A rewrite is a function that takes a block and returns a new one that computes the same, or None if it
does not know the block. The one for GPT-2 is here; installed packages list theirs in the
entry-point group ``trtbuild.block_rewrites``; a script passes its own. `samples/prune_yolo` has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from trtbuild.errors import ModelError
from trtbuild.plugins import BLOCK_REWRITE, load_installed
from trtbuild.pytorch.float64 import float64_copy, outputs64, relative_difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["BlockRewrite", "rewrite_again", "rewrite_blocks"]

BlockRewrite = Callable[[nn.Module], nn.Module | None]
"""Block -> an equal one whose channels can be pruned, or None; the given block does not change."""

_TOLERANCE = 1e-12
"""Relative, in float64: products and sums are the same, but other widths may add in another order."""


def rewrite_blocks(
    module: nn.Module, rewrites: Sequence[BlockRewrite], inputs: BoundInputs
) -> tuple[tuple[str, str], ...]:
    """Replace every block that a rewrite knows, in place, and compare the module with the original.

    Args:
        module: in eval mode.
        rewrites: tried in this order before the installed ones; the first that knows a block is used.
        inputs: the sample inputs for the comparison.

    Returns:
        Path of each block, and the name of its rewrite (``module:function``).

    Raises:
        ModelError: a rewritten network does not run, or its results in float64 differ.
    """
    known = _by_name(rewrites)
    dense: nn.Module | None = None
    done: list[tuple[str, str]] = []
    for path, block in list(module.named_modules()):
        if not path or any(path.startswith(f"{other}.") for other, _ in done):
            continue
        for name, rewrite in known.items():
            new = rewrite(block)
            if new is not None:
                dense = float64_copy(module) if dense is None else dense
                _put(module, path, new)
                done.append((path, name))
                break
    if dense is not None:
        _compare(dense, module, inputs, done)
    return tuple(done)


def rewrite_again(
    module: nn.Module, done: Iterable[tuple[str, str]], rewrites: Sequence[BlockRewrite]
) -> None:
    """Repeat the rewrites of `rewrite_blocks` on a fresh `module`, in place.

    Raises:
        ModelError: a rewrite is neither passed nor installed, or no longer knows its block.
    """
    known = _by_name(rewrites)
    for path, name in done:
        if name not in known:
            raise ModelError(
                f"the block '{path}' was rewritten by '{name}', which is not installed: install the "
                "package that has it, or give it to load_pruned."
            )
        new = known[name](module.get_submodule(path))
        if new is None:
            raise ModelError(f"'{name}' no longer knows the block '{path}', which it rewrote.")
        _put(module, path, new)


def _by_name(rewrites: Sequence[BlockRewrite]) -> Mapping[str, BlockRewrite]:
    known: dict[str, BlockRewrite] = {}
    installed = load_installed(BLOCK_REWRITE, ModelError).values()
    for rewrite in (*rewrites, *installed, conv1d_as_linear):
        known.setdefault(f"{rewrite.__module__}:{rewrite.__qualname__}", rewrite)
    return known


def conv1d_as_linear(block: nn.Module) -> nn.Module | None:
    """Return a linear layer in place of GPT-2's ``Conv1D``, whose weight is transposed."""
    weight, bias = getattr(block, "weight", None), getattr(block, "bias", None)
    if type(block).__name__ != "Conv1D" or not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        return None
    layer = nn.Linear(
        *weight.shape, bias=bias is not None, dtype=weight.dtype, device=weight.device
    )
    layer.weight = nn.Parameter(weight.detach().T.clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    drawn = torch.randn(3, weight.shape[0], dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        return layer if torch.allclose(block(drawn), layer(drawn), rtol=1e-3, atol=1e-3) else None


def _put(module: nn.Module, path: str, new: nn.Module) -> None:
    """Put `new` at `path`, with the plain attributes of the old block, which its parent may read."""
    old = module.get_submodule(path)
    for name, value in vars(old).items():
        if not name.startswith("_") and name not in vars(new):
            setattr(new, name, value)
    new.train(old.training)
    parent, _, name = path.rpartition(".")
    module.get_submodule(parent)._modules[name] = new


def _compare(
    dense: nn.Module, module: nn.Module, inputs: BoundInputs, done: Sequence[tuple[str, str]]
) -> None:
    names = ", ".join(dict.fromkeys(name for _, name in done))
    try:
        wanted = outputs64(dense, inputs, 1)
        found = outputs64(float64_copy(module), inputs, 1)
    except Exception as error:
        raise ModelError(f"what '{names}' rewrote does not run: {error}") from error
    difference = relative_difference(wanted, found)
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"what '{names}' rewrote computes something else: off by {difference:.1e} in float64."
        )
