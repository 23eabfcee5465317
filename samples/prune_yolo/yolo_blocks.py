"""YOLOv8's C2f block, and a rewrite that gives it a form whose channels can be pruned.

C2f computes one convolution, cuts its output in two with ``chunk`` and uses the second half again. Both
halves of one tensor must stay of one size, so pruning removes the same channels of both. Two convolutions
with half of the weights each compute exactly the same, and are pruned independently.

The definitions are those of Ultralytics' ``nn/modules`` (Conv, Bottleneck, C2f) and of its models: the
layers carry ``f``, ``i`` and ``type``, which the model's forward reads.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["C2f", "Conv", "Net", "SplitC2f", "split_c2f"]


class Conv(nn.Module):
    """Convolution, BatchNorm and SiLU."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, c1, h, w]`` to ``[n, c2, h / s, w / s]``."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions and, where the widths agree, the input added."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1, self.cv2 = Conv(c1, hidden, 3), Conv(hidden, c2, 3)
        self.add = shortcut and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, c1, h, w]`` to ``[n, c2, h, w]``."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """One convolution in two halves, bottlenecks on the second, all of them concatenated."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, e: float = 0.5
    ) -> None:
        super().__init__()
        self.c = int(c2 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv((2 + n) * self.c, c2)
        self.m = nn.ModuleList(Bottleneck(self.c, self.c, shortcut, e=1.0) for _ in range(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, c1, h, w]`` to ``[n, c2, h, w]``."""
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Net(nn.Module):
    """A small network like Ultralytics' models: each layer names the layer of its input."""

    def __init__(self) -> None:
        super().__init__()
        layers = [Conv(3, 16, 3, 2), C2f(16, 32, n=2, shortcut=True), Conv(32, 32, 3, 2),
                  nn.Conv2d(32, 6, 1)]  # fmt: skip
        self.model = nn.Sequential(*layers)
        for i, layer in enumerate(self.model):
            layer.i, layer.f, layer.type = i, -1, type(layer).__name__

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 3, h, w]`` to ``[n, 6, h / 4, w / 4]``."""
        y: list[torch.Tensor] = []
        for m in self.model:
            if m.f != -1:
                x = y[m.f]
            x = m(x)
            y.append(x)
        return x


class SplitC2f(nn.Module):
    """C2f with its first convolution in two: ``concat(a, b, m0(b), m1(m0(b)), ...)``, then ``cv2``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.cv0 = _half(block.cv1, 0)
        self.cv1 = _half(block.cv1, 1)
        self.m = block.m
        self.cv2 = block.cv2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, in, h, w]`` to ``[n, out, h, w]``."""
        parts = [self.cv0(x), self.cv1(x)]
        parts.extend(inner(parts[-1]) for inner in self.m)
        return self.cv2(torch.cat(parts, 1))


def split_c2f(block: nn.Module) -> nn.Module | None:
    """Return a block that computes the same as `block` if that is a C2f, by its class name; else None."""
    if type(block).__name__ != "C2f" or block.cv1.conv.out_channels % 2:
        return None
    return SplitC2f(block)


def _half(block: nn.Module, which: int) -> nn.Module:
    """A copy of a Conv with one half of its output channels."""
    half = copy.deepcopy(block)
    half.conv.weight = nn.Parameter(half.conv.weight.detach().chunk(2)[which].clone())
    half.conv.out_channels //= 2
    half.bn.num_features //= 2
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(half.bn, name)
        part = value.detach().chunk(2)[which].clone()
        setattr(half.bn, name, nn.Parameter(part) if isinstance(value, nn.Parameter) else part)
    return half
