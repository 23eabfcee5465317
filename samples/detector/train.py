"""Train the detector of this folder on made scenes, and write ``shapes.onnx``.

Needs the extra ``torch``; takes some minutes on two cores. Each cell of 8 x 8 pixels finds the object whose
centre lies in it. The output has the layout of YOLOv8: ``[images, 4 + kinds, cells]``, centre and size in
pixels of the input, then a score for each kind.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scenes import KINDS, scene
from torch import nn

HERE = Path(__file__).parent
SIZE, STRIDE, PAD = 128, 8, 114
CELLS = (SIZE // STRIDE) ** 2
STEPS, BATCH = 1200, 32


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Detector(nn.Module):
    """RGB images of 128 x 128 to boxes and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer(3, 12, 2), layer(12, 24, 2), layer(24, 40, 2), layer(40, 40), layer(40, 40)
        )
        self.wide = nn.Sequential(layer(40, 48, 2), layer(48, 40), nn.Upsample(scale_factor=2))
        self.box = nn.Sequential(layer(40, 32), nn.Conv2d(32, 4, 1))
        self.score = nn.Sequential(layer(40, 32), nn.Conv2d(32, len(KINDS), 1))
        cells = SIZE // STRIDE
        rows, columns = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        self.register_buffer("grid", torch.stack([columns, rows]).reshape(1, 2, -1).float())

    def raw(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boxes in pixels and logits, ``[images, 4 or kinds, cells]``."""
        x = self.body(images)
        x = x + self.wide(x)
        box = torch.sigmoid(self.box(x).reshape(-1, 4, CELLS))
        centre = (box[:, :2] * 2 - 0.5 + self.grid) * STRIDE
        return torch.cat([centre, box[:, 2:] * SIZE], 1), self.score(x).reshape(
            -1, len(KINDS), CELLS
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return boxes and scores, ``[images, 4 + kinds, cells]``."""
        boxes, logits = self.raw(images)
        return torch.cat([boxes, torch.sigmoid(logits)], 1)


def batch(random: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
    """Return images, target boxes, target scores, and a mask of the cells with a box."""
    cells = SIZE // STRIDE
    images = np.full((count, SIZE, SIZE, 3), PAD, np.uint8)
    boxes = np.zeros((count, 4, cells * cells), np.float32)
    scores = np.zeros((count, len(KINDS), cells * cells), np.float32)
    for number in range(count):
        width, height = ((192, 128), (160, 160), (128, 176))[random.integers(3)]
        image, found = scene(random, width, height)
        scale = min(SIZE / width, SIZE / height)
        wide, high = round(width * scale), round(height * scale)
        x, y = (SIZE - wide) // 2, (SIZE - high) // 2
        images[number, y : y + high, x : x + wide] = image.resize(
            (wide, high), Image.Resampling.BILINEAR
        )
        for kind, (left, top, w, h) in found:
            centre = (x + (left + w / 2) * scale, y + (top + h / 2) * scale)
            cell = int(centre[1] // STRIDE) * cells + int(centre[0] // STRIDE)
            boxes[number, :, cell] = (*centre, w * scale, h * scale)
            scores[number, kind, cell] = 1
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    wanted = torch.from_numpy(scores)
    return pixels, torch.from_numpy(boxes), wanted, wanted.sum(1) > 0


def main() -> None:
    """Train and write the file."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Detector()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for step in range(STEPS):
        images, boxes, scores, is_there = batch(random, BATCH)
        found, logits = model.raw(images)
        score_loss = nn.functional.binary_cross_entropy_with_logits(
            logits, scores, reduction="none", pos_weight=torch.tensor(4.0)
        )
        far = (found - boxes).abs().mean(1)[is_there] / STRIDE
        loss = score_loss.sum() / is_there.sum() + far.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.eval()
    torch.onnx.export(
        model, (torch.zeros(1, 3, SIZE, SIZE),), HERE / "shapes.onnx", opset_version=17, dynamo=False,
        input_names=["images"], output_names=["boxes"],
        dynamic_axes={"images": {0: "batch"}, "boxes": {0: "batch"}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
