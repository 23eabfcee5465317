"""Time to fold and to prune a ResNet-50 with random weights: under 5 s and under 10 s.

python benchmarks/pytorch_resnet50.py
"""

from __future__ import annotations

import time

import torch
from torch import nn

from trtbuild.pytorch import InputSpec, fold_norms
from trtbuild.pytorch.fold import FoldReport
from trtbuild.pytorch.prune import prune_channels
from trtbuild.pytorch.spec import PruneSpec

IMAGE = [InputSpec((1, 3, 224, 224))]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a skip connection (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, inputs, h, w]`` to ``[n, 4 width, h / stride, w / stride]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet50() -> nn.Module:
    """25.6 million parameters, 4.1 billion multiply-accumulates."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    inputs = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(inputs, 64 << stage, stride))
            inputs = 4 * (64 << stage)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    return nn.Sequential(*layers).eval()


def _warm_up() -> None:
    """Do the imports and compilations that every process needs once."""
    small = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
    ).eval()
    inputs = [InputSpec((1, 3, 16, 16))]
    fold_norms(small, inputs)
    prune_channels(small, inputs, PruneSpec(0.5))


def main() -> None:
    """Print wall and CPU time of both operations, with their results."""
    module = resnet50()
    for name, work in (
        ("first use of torch.export and Torch-Pruning", _warm_up),
        ("fold", lambda: fold_norms(module, IMAGE).report),
        ("prune", lambda: prune_channels(module, IMAGE, PruneSpec(0.5, round_to=32)).report),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        report = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{name}: {wall:.1f} s wall, {cpu:.1f} s CPU")
        if isinstance(report, FoldReport):
            print(
                f"  {len(report.folded)} folded, {len(report.left)} left, {report.relative_error:.1e}"
            )
        elif report is not None:
            print(f"  MACs {report.before.macs:,} -> {report.after.macs:,}, ", end="")
            print(f"parameters {report.before.parameters:,} -> {report.after.parameters:,}")


if __name__ == "__main__":
    main()
