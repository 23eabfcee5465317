"""Small scenes with a digit, a depthwise network that finds its position, and the training."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

__all__ = ["SIZE", "Mobile", "fit", "found", "scenes", "train"]

# more threads make so small a network no faster, and add up in another order
torch.set_num_threads(1)

SIZE = 20
"""Pixels of a scene's side."""
NUM_TEST = 540
"""Number of digits that occur in test scenes only."""
STAGES = ((8, 1), (12, 2), (16, 2))
"""Channels and blocks of each stage; all but the first halve the map."""


def scenes(count: int, *, test: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw scenes, with the position of the ink's centre in each.

    Args:
        count: number of scenes.
        test: use digits that no training scene shows.

    Returns:
        Images ``[count, 1, 20, 20]`` in float32, a digit of 8 x 8 somewhere on noise; and positions
        ``[count, 2]``, row and column from -1 (the first pixel) to 1 (the last).
    """
    digits = np.random.default_rng(0).permutation(load_digits().images / 16)
    digits = digits[:NUM_TEST] if test else digits[NUM_TEST:]
    draw = np.random.default_rng(2 if test else 1)
    images = 0.1 * draw.standard_normal((count, 1, SIZE, SIZE))
    centres = np.empty((count, 2))
    for scene, centre in zip(images[:, 0], centres):
        digit, corner = digits[draw.integers(len(digits))], draw.integers(0, SIZE - 7, 2)
        scene[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] += digit
        ink = np.stack([digit.sum(1), digit.sum(0)]) / digit.sum()
        centre[:] = corner + ink @ np.arange(8)
    return images.astype(np.float32), (2 * centres / (SIZE - 1) - 1).astype(np.float32)


def found(given: np.ndarray, positions: np.ndarray) -> float:
    """Return the percentage of scenes whose digit is found to a quarter of a pixel, row and column."""
    off = np.abs(given - positions).max(1) * (SIZE - 1) / 2
    return 100 * float((off < 0.25).mean())


class Block(nn.Module):
    """1 x 1, depthwise 3 x 3, and 1 x 1 without an activation (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.norm1, self.act1 = nn.BatchNorm2d(hidden), nn.Hardswish()
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.norm2, self.act2 = nn.BatchNorm2d(hidden), nn.Hardswish()
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
        y = self.act1(self.norm1(self.expand(x)))
        y = self.norm3(self.project(self.act2(self.norm2(self.depthwise(y)))))
        return x + y if self.adds else y


class Mobile(nn.Module):
    """Scenes ``[n, 1, 20, 20]`` to positions ``[n, 2]``; 7,474 parameters."""

    def __init__(self) -> None:
        super().__init__()
        width = STAGES[0][0]
        self.stem, self.norm = nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.act = nn.Hardswish()
        self.stages = nn.ModuleList()
        for number, (outputs, count) in enumerate(STAGES):
            blocks = [Block(width, outputs, 2 if number else 1)]
            blocks += [Block(outputs, outputs, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            width = outputs
        self.head = nn.Linear(width * (SIZE // 4) ** 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[n, 1, 20, 20]`` to ``[n, 2]``."""
        x = self.act(self.norm(self.stem(image)))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.flatten(1))


def fit(module: nn.Module, epochs: int, rate: float, count: int = 4000) -> None:
    """Train in place."""
    images, positions = map(torch.from_numpy, scenes(count))
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=0)
    steps = epochs * -(-count // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(count).split(64):
            loss = nn.functional.smooth_l1_loss(module(images[rows]), positions[rows], beta=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()


def train(module: nn.Module) -> None:
    """For ``trtbuild qat``: the same loop over a module that rounds, with a fifth of the learning rate."""
    torch.manual_seed(0)
    fit(module, epochs=8, rate=1e-3)
