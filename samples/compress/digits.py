"""A residual network for 8 x 8 digits, and the two functions that `trtbuild compress` calls.

    python samples/compress/digits.py

trains the dense network and writes ``digits.pt`` and ``calibration.npz`` into ``out/compress``. Needs the
extras ``torch`` and ``dev`` (for scikit-learn's digits).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from sklearn.datasets import load_digits
from torch import nn

NUM_TEST = 540
TEMPERATURE = 3.0


class Block(nn.Module):
    """Two convolutions around a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, width, h, w]`` to the same."""
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


def build(width: int = 32) -> nn.Module:
    """Return the network: ``[n, 1, 8, 8]`` grey values from 0 to 1 to ten scores."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width),
        nn.MaxPool2d(2),
        Block(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return all images and labels, shuffled; the first `NUM_TEST` are for the evaluation only."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    images = (data.images[order] / 16).astype(np.float32)[:, None]
    return torch.from_numpy(images), torch.from_numpy(data.target[order].astype(np.int64))


def train(module: nn.Module, teacher: nn.Module | None = None, epochs: int = 5) -> None:
    """Train `module` in place; with a teacher also towards its scores (Hinton 2015, arXiv 1503.02531)."""
    images, labels = (part[NUM_TEST:] for part in digits())
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3, weight_decay=1e-2)
    steps = epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            scores = module(images[rows])
            loss = F.cross_entropy(scores, labels[rows])
            if teacher is not None:
                with torch.no_grad():
                    wanted = F.softmax(teacher(images[rows]) / TEMPERATURE, dim=1)
                own = F.log_softmax(scores / TEMPERATURE, dim=1)
                loss = loss + TEMPERATURE**2 * F.kl_div(own, wanted, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def evaluate(module: nn.Module) -> float:
    """Return top-1 on the test images, in percent."""
    images, labels = (part[:NUM_TEST] for part in digits())
    return 100 * float((module(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Train the dense network, and write its checkpoint and the calibration images."""
    torch.manual_seed(0)
    folder = Path("out/compress")
    folder.mkdir(parents=True, exist_ok=True)
    module = build()
    train(module, epochs=12)
    module.eval()
    torch.save(module.state_dict(), folder / "digits.pt")
    np.savez(folder / "calibration.npz", x=digits()[0][NUM_TEST:].numpy())
    print(f"top-1 {evaluate(module):.2f} %")


if __name__ == "__main__":
    main()
