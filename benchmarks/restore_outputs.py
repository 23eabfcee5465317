"""How long least squares after pruning take, and whether a change of the code changes their weights.

    python benchmarks/restore_outputs.py

Takes a residual network of 20 layers at 32 x 32, and ResNet-50 of torchvision at 64 x 64 where that is
installed, with random weights; removes half of the channels, and prints seconds and a sum of the weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.pytorch import InputSpec
from trtbuild.pytorch.prune import prune_channels, restore_outputs
from trtbuild.pytorch.spec import PruneSpec

if TYPE_CHECKING:
    from collections.abc import Callable


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output; its size is divided by the stride."""
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (y + self.short(x)).relu()


def resnet20() -> nn.Module:
    """A residual network of 20 layers for 32 x 32 images (He et al. 2015, arXiv 1512.03385)."""
    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    blocks = [
        Block(inputs, outputs, 2 if inputs != outputs else 1)
        for inputs, outputs in pairwise(widths)
    ]
    first = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet50() -> nn.Module:
    """ResNet-50 of torchvision."""
    import torchvision

    module: nn.Module = torchvision.models.resnet50()
    return module


NETWORKS: dict[str, tuple[Callable[[], Any], int]] = {
    "resnet20": (resnet20, 32),
    "resnet50": (resnet50, 64),
}


def main() -> int:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--network", choices=tuple(NETWORKS), action="append")
    given = parser.parse_args()
    for name in given.network or NETWORKS:
        build, size = NETWORKS[name]
        torch.manual_seed(0)
        module = build().eval()
        inputs = [InputSpec((2, 3, size, size))]
        pruned = prune_channels(module, inputs, PruneSpec(0.5))
        images = torch.randn(given.samples, 3, size, size).split(64)
        samples = [{pruned.history.inputs[0].name: batch} for batch in images]
        start, computed = time.perf_counter(), time.process_time()
        layers = restore_outputs(module, pruned, samples)
        seconds, computed = time.perf_counter() - start, time.process_time() - computed
        total = sum(float(one.detach().double().abs().sum()) for one in pruned.module.parameters())
        print(
            f"{name}: {len(layers)} layers, {given.samples} samples, {seconds:.1f} s "
            f"({computed:.1f} s of processors), weights {total:.9f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
