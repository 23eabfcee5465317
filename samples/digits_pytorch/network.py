"""A residual network of 78 thousand parameters for 8 x 8 digits, and the digits themselves."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from sklearn.datasets import load_digits
from torch import nn

__all__ = ["Digits", "images_and_labels"]

NUM_TEST = 540


class Block(nn.Module):
    """Two convolutions around a skip connection, which is projected where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.project = nn.Identity()
        if inputs != outputs:
            self.project = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.project(x))


class Digits(nn.Module):
    """``[n, 1, 8, 8]`` grey values from 0 to 1 to ten scores."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            Block(width, width), Block(width, 2 * width), Block(2 * width, 4 * width, 2)
        )
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits."""
        x = F.relu(self.bn(self.stem(image)))
        return self.fc(self.blocks(x).mean((2, 3)))


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1797 digits, shuffled; the first `NUM_TEST` are for testing only."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = (digits.images[order] / 16).astype(np.float32)[:, None]
    return images, digits.target[order].astype(np.int64)
