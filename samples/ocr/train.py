"""Train the recogniser of this folder on made lines, and write ``lines.onnx``.

Needs the extra ``torch``; takes some minutes on two cores. The output is ``[images, 40 steps, 37 classes]``:
the blank of CTC (Graves et al. 2006) first, then the alphabet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lines import ALPHABET, HEIGHT, WIDTH, line
from torch import nn

HERE = Path(__file__).parent
STEPS, BATCH = 2000, 32


def layer(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Recogniser(nn.Module):
    """Grey lines ``[images, 1, 32, 160]`` to probabilities of classes for each of 40 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer(1, 16, (2, 2)), layer(16, 32, (2, 2)), layer(32, 48, (2, 1)), layer(48, 64, (1, 1)),
            nn.Conv2d(64, 64, (4, 1)), nn.ReLU(),
        )  # fmt: skip
        self.along = nn.Sequential(
            nn.Conv1d(64, 96, 5, padding=2, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
        )  # fmt: skip
        self.classes = nn.Linear(96, 1 + len(ALPHABET))

    def raw(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, ``[images, steps, classes]``."""
        return self.classes(self.along(self.body(images).squeeze(2)).transpose(1, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities of classes, ``[images, steps, classes]``."""
        return torch.softmax(self.raw(images), -1)


def batch(random: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str]]:
    """Return images and their texts."""
    made = [line(random) for _ in range(count)]
    pixels = np.stack([np.asarray(image, np.float32) for image, _ in made])
    return torch.from_numpy(pixels)[:, None] / 255, [text for _, text in made]


def main() -> None:
    """Train, print the accuracy, write the file."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Recogniser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for step in range(STEPS):
        images, texts = batch(random, BATCH)
        shares = model.raw(images).log_softmax(-1).transpose(0, 1)
        wanted = torch.tensor([1 + ALPHABET.index(one) for text in texts for one in text])
        lengths = torch.tensor([len(text) for text in texts])
        steps = torch.full((BATCH,), shares.shape[0])
        loss = nn.functional.ctc_loss(shares, wanted, steps, lengths)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.eval()
    images, texts = batch(np.random.default_rng(3), 256)
    with torch.no_grad():
        best = model(images).argmax(-1)
    read = ["".join(ALPHABET[c - 1] for c in row.unique_consecutive() if c) for row in best]
    print(f"{100 * np.mean([a == b for a, b in zip(read, texts)]):.1f} % of 256 lines read right")
    torch.onnx.export(
        model, (torch.zeros(1, 1, HEIGHT, WIDTH),), HERE / "lines.onnx", opset_version=17, dynamo=False,
        input_names=["images"], output_names=["classes"],
        dynamic_axes={"images": {0: "batch"}, "classes": {0: "batch"}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
