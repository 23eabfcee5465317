"""YOLO's C2f block in a form whose channels can be pruned.

C2f computes one convolution, cuts its output in two with ``chunk`` and uses the second half again. Two
halves of one tensor must stay equal, which channel pruning cannot promise. Two convolutions with the
halves of the weights compute exactly the same and are free of each other.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from trtbuild.pytorch.copies import copy_module

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SplitC2f", "find_c2f", "split_c2f"]


class SplitC2f(nn.Module):  # type: ignore[misc]
    """C2f with its first convolution in two: ``concat(a, b, m0(b), m1(m0(b)), ...)``, then ``cv2``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.cv0 = _half(block.cv1, 0)
        self.cv1 = _half(block.cv1, 1)
        self.m = block.m
        self.cv2 = block.cv2
        self.train(block.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, in, h, w]`` to ``[n, out, h, w]``."""
        parts = [self.cv0(x), self.cv1(x)]
        parts.extend(inner(parts[-1]) for inner in self.m)
        fused: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return fused


def _half(block: nn.Module, which: int) -> nn.Module:
    """A copy of a conv-norm-activation block with one half of its output channels."""
    half = copy.deepcopy(block)
    for child in half.modules():
        if isinstance(child, nn.Conv2d):
            child.weight = nn.Parameter(child.weight.detach().chunk(2)[which].clone())
            if child.bias is not None:
                child.bias = nn.Parameter(child.bias.detach().chunk(2)[which].clone())
            child.out_channels //= 2
        elif isinstance(child, nn.BatchNorm2d):
            child.num_features //= 2
            for name in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(child, name)
                if value is not None:
                    part = value.detach().chunk(2)[which].clone()
                    setattr(
                        child, name, nn.Parameter(part) if isinstance(value, nn.Parameter) else part
                    )
    return half


def find_c2f(module: nn.Module) -> list[str]:
    """Paths of blocks that have C2f's parts and compute what `SplitC2f` computes, exactly."""
    return [path for path, block in module.named_modules() if path and _is_c2f(block)]


def _is_c2f(block: nn.Module) -> bool:
    parts = ("cv1", "cv2", "m")
    if isinstance(block, SplitC2f) or not all(hasattr(block, name) for name in parts):
        return False
    convs = [child for child in block.cv1.modules() if isinstance(child, nn.Conv2d)]
    if not isinstance(block.m, nn.ModuleList) or len(convs) != 1:
        return False
    conv = convs[0]
    if conv.groups != 1 or conv.out_channels % 2:
        return False
    try:
        original = copy_module(block).double().eval()
        sample = torch.randn(
            2,
            conv.in_channels,
            16,
            16,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(0),
        )
        with torch.no_grad():
            want, got = original(sample), SplitC2f(original)(sample)
        # The same products and sums in float64; a convolution of another width may add in another order.
        return bool((want - got).abs().max() <= 1e-12 * want.abs().max())
    except Exception:  # noqa: BLE001 - a block that merely has the same names
        return False


def split_c2f(module: nn.Module, paths: Iterable[str]) -> None:
    """Replace the blocks at `paths` by `SplitC2f`, in place."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        module.get_submodule(parent)._modules[name] = SplitC2f(module.get_submodule(path))
