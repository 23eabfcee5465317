"""Running a module in float64, also where its code names a smaller type.

A fold is right or wrong at 1e-15 against 1e-1 in float64, and hard to tell in float32, where 50 layers
of ordinary rounding differ by more than 1e-3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.inputs import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["Float64", "float64_copy", "outputs64", "relative_difference"]

_SMALLER = frozenset((torch.float32, torch.float16, torch.bfloat16))
_CASTS = frozenset((torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16))


class Float64(TorchFunctionMode):  # type: ignore[misc]
    """Within this mode every floating-point type that code asks for is float64."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func` with float64 in the place of smaller types."""
        del types
        if func in _CASTS:
            func = torch.Tensor.double
        keywords = {key: _widened(value) for key, value in (kwargs or {}).items()}
        return func(*(_widened(value) for value in args), **keywords)


def _widened(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _SMALLER else value


def float64_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` with every floating-point tensor in float64."""
    return copy_module(module, torch.float64)


def outputs64(module: nn.Module, inputs: BoundInputs, seed: int) -> list[torch.Tensor]:
    """Run a float64 module on a float64 sample; its output tensors, flattened out of their containers."""
    arguments, keywords = sample(inputs, seed, torch.float64)
    with torch.no_grad(), Float64():
        return tensors_in(module(*arguments, **keywords))


def tensors_in(output: Any) -> list[torch.Tensor]:
    """The tensors of an output in the order of its containers; copies, so that nothing overwrites them."""
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def relative_difference(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Largest ``max|expected - found| / max|expected|`` over the outputs; infinite when shapes differ.

    An output that is not finite in both gives infinity: nothing can be said about it.
    """
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("inf")
    worst = 0.0
    for want, got in zip(expected, found):
        if want.numel() == 0:
            continue
        difference = (want.double() - got.double()).abs().max().item()
        scale = want.double().abs().max().item()
        if not (difference < float("inf") and scale < float("inf")):
            return float("inf")
        worst = max(worst, difference / scale if scale else difference)
    return worst
