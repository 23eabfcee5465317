"""Modules in float64, and how far their outputs are apart.

In float64 a correct fold differs by 1e-15 and a wrong one by 1e-1. In float32 they are hard to tell apart:
ordinary rounding of 50 layers alone makes more than 1e-3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.inputs import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["distance", "float64_copy", "outputs64", "relative_difference", "tensors_in"]

_SMALLER = frozenset((torch.float32, torch.float16, torch.bfloat16))
_CASTS = frozenset((torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16))


class _Float64(TorchFunctionMode):  # type: ignore[misc]
    """In this mode every floating-point type that code asks for, by name or by default, becomes float64."""

    def __enter__(self) -> Any:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self._default)
        super().__exit__(*error)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func` with float64 instead of smaller types."""
        del types
        if func in _CASTS:
            func = torch.Tensor.double
        keywords = {key: _widened(value) for key, value in (kwargs or {}).items()}
        return func(*(_widened(value) for value in args), **keywords)


def _widened(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _SMALLER else value


def float64_copy(module: nn.Module) -> nn.Module:
    """Return a copy of `module` with every floating-point tensor in float64."""
    return copy_module(module, torch.float64)


def outputs64(module: nn.Module, inputs: BoundInputs, seed: int) -> list[torch.Tensor]:
    """Run a float64 module on a float64 sample; return its output tensors without their containers."""
    arguments, keywords = sample(inputs, seed, torch.float64)
    with torch.no_grad(), _Float64():
        return tensors_in(module(*arguments, **keywords))


def tensors_in(output: Any) -> list[torch.Tensor]:
    """Return copies of an output's tensors, in the order of its containers, safe from later overwriting."""
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def relative_difference(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Return the largest `distance` of the outputs; infinity if their numbers differ or one is not finite."""
    if len(expected) != len(found):
        return math.inf
    pairs = zip(expected, found)
    return max(
        (distance(want, got) if want.isfinite().all() else math.inf for want, got in pairs),
        default=0.0,
    )


def distance(want: torch.Tensor, got: torch.Tensor) -> float:
    """Return ``max|want - got| / max|want|``; infinity if shapes differ or only one is finite."""
    if want.shape != got.shape:
        return math.inf
    if want.numel() == 0:
        return 0.0
    expected, found = want.double(), got.double()
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return math.inf
    difference = float(torch.where(finite, expected - found, 0.0).abs().max())
    scale = float(torch.where(finite, expected, 0.0).abs().max())
    return difference / scale if scale else difference
