"""Train the small network of the quickstart on scikit-learn's bundled digits, and write its files.

Needs the extras ``torch`` and ``dev``. Writes ``digits.onnx`` (float, batch norms kept),
``calibration.npz`` (training images) and ``test.npz`` (images and labels that training did
not see).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).parent
EPOCHS = 25
NUM_TEST = 540


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two convolutions around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = block(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the output of the convolutions to the input."""
        return torch.relu(x + self.second(self.first(x)))


def network() -> nn.Sequential:
    """8 x 8 grey pixels to ten class scores."""
    return nn.Sequential(
        block(1, 16), Residual(16), block(16, 32, stride=2), Residual(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def main() -> None:
    """Train, print the accuracy, write the files."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images, labels = digits.images[order].astype(np.uint8), digits.target[order].astype(np.int64)
    test, train = slice(0, NUM_TEST), slice(NUM_TEST, None)
    x = torch.from_numpy(images / np.float32(16)).float().unsqueeze(1)
    y = torch.from_numpy(labels)

    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(x[train])).split(64):
            loss = nn.functional.cross_entropy(model(x[train][rows]), y[train][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    right = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    print(f"float top-1 on {NUM_TEST} test images: {100 * right:.2f} %")

    torch.onnx.export(
        model, (x[:1],), HERE / "digits.onnx", input_names=["image"], output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}}, opset_version=17, dynamo=False,
        do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    np.savez_compressed(HERE / "calibration.npz", image=images[train])
    np.savez_compressed(HERE / "test.npz", image=images[test], label=labels[test])


if __name__ == "__main__":
    main()
