"""Digits, a small network of depthwise convolutions, and how it is trained; nothing of trtbuild."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

__all__ = ["NUM_TEST", "Mobile", "fit", "images_and_labels", "spread", "train"]

# as small a network is no faster on more, and sums in another order there
torch.set_num_threads(1)

NUM_TEST = 540
STAGES = ((12, 2), (24, 2), (32, 2))
"""Channels and blocks of each stage; all but the first halve the map."""


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Images ``[1797, 1, 8, 8]`` in float32 from 0 to 1, and labels, in one mixed order."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    return images, digits.target[order].astype(np.int64)


class Block(nn.Module):
    """1 x 1, depthwise 3 x 3, and 1 x 1 without an activation (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.norm1, self.act1 = nn.BatchNorm2d(hidden), nn.ReLU6()
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.norm2, self.act2 = nn.BatchNorm2d(hidden), nn.ReLU6()
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
        y = self.act1(self.norm1(self.expand(x)))
        y = self.norm3(self.project(self.act2(self.norm2(self.depthwise(y)))))
        return x + y if self.adds else y


class Mobile(nn.Module):
    """Digits ``[n, 1, 8, 8]`` to ten scores; 21,914 parameters."""

    def __init__(self) -> None:
        super().__init__()
        width = STAGES[0][0]
        self.stem, self.norm = nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stages = nn.ModuleList()
        for number, (outputs, count) in enumerate(STAGES):
            blocks = [Block(width, outputs, 2 if number else 1)]
            blocks += [Block(outputs, outputs, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            width = outputs
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[n, 1, 8, 8]`` to ``[n, 10]``."""
        x = self.norm(self.stem(image))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def fit(module: nn.Module, epochs: int, rate: float, seed: int = 0, batch: int = 32) -> None:
    """Train in place on the images that are not for testing."""
    images, labels = (torch.from_numpy(one[NUM_TEST:]) for one in images_and_labels())
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=1e-2)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(batch):
            loss = nn.functional.cross_entropy(module(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()


def train(module: nn.Module) -> None:
    """What ``trtbuild qat`` calls: the same loop over a module that rounds, with a sixteenth of the rate."""
    fit(module, epochs=12, rate=3e-4)


@torch.no_grad()
def spread(module: Mobile, octaves: float = 7.0, seed: int = 0) -> None:
    """Let the channels of the sums differ by up to ``2 ** octaves`` in size; the scores stay what they are.

    What writes a channel is multiplied, what reads it divided. Trained MobileNets look like that, and one
    scale for a tensor then leaves few steps for small channels (Nagel et al. 2019, arXiv 1906.04721).
    """
    draw = torch.Generator().manual_seed(seed)
    writers: list[nn.BatchNorm2d] = [module.norm]
    readers: list[torch.Tensor] = []
    for stage in module.stages:
        for block in stage:
            readers.append(block.expand.weight)
            if not block.adds:
                _scale(writers, readers, octaves, draw)
                writers, readers = [], []
            writers.append(block.norm3)
    _scale(writers, [*readers, module.head.weight], octaves, draw)


def _scale(
    writers: list[nn.BatchNorm2d],
    readers: list[torch.Tensor],
    octaves: float,
    draw: torch.Generator,
) -> None:
    factors = 2 ** (-octaves * torch.rand(writers[0].num_features, generator=draw))
    for norm in writers:
        norm.weight.mul_(factors)
        norm.bias.mul_(factors)
    for weight in readers:
        weight.div_(factors.view(1, -1, *[1] * (weight.ndim - 2)))
