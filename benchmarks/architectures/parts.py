"""Parts that several of the networks share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  its usual name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MLP", "SelfAttention", "conv_norm", "heads", "joined", "stack"]


def conv_norm(
    num_in: int,
    num_out: int,
    size: int = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution that keeps the extent (divided by the stride), BatchNorm and an activation."""
    conv = nn.Conv2d(num_in, num_out, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(num_out), *([act()] if act else []))


def stack(num: int, make: Callable[[], nn.Module]) -> nn.Sequential:
    """Return a sequence of several modules of one kind."""
    return nn.Sequential(*(make() for _ in range(num)))


def heads(x: torch.Tensor, num: int) -> torch.Tensor:
    """Return [batch, length, channels] as [batch, heads, length, channels a head]."""
    batch, length, channels = x.shape
    return x.view(batch, length, num, channels // num).transpose(1, 2)


def joined(x: torch.Tensor) -> torch.Tensor:
    """Return [batch, heads, length, channels a head] as [batch, length, channels]."""
    return x.transpose(1, 2).flatten(2)


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))


class SelfAttention(nn.Module):
    """Attention with one projection for Q, K and V, written out or by PyTorch's fused function."""

    def __init__(self, size: int, num_heads: int, *, fused: bool = False) -> None:
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (heads(one, self.num_heads) for one in self.qkv(x).chunk(3, -1))
        if self.fused:
            return self.out(joined(F.scaled_dot_product_attention(q, k, v)))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        return self.out(joined(scores.softmax(-1) @ v))
