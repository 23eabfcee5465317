"""Compress ResNet-20 for CIFAR-10 to half of its multiply-accumulates and INT8, one call per seed.

    python benchmarks/compress_resnet20.py DATA OUTPUT.json [--seeds 3] [--epochs 5]

DATA holds ``resnet20.npz`` (the state dict), ``calib_exact_1024.npz`` and ``calib_jpeg_1024.npz`` (training
images, the same in both, lossless and through JPEG), and ``test_jpeg_2000.npz``; each has ``x`` (uint8, NHWC)
and ``y``. With so few images, the teacher (the dense network itself) is a better target than the labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

import trtbuild
from tests.trtbuild.pytorch.resnet20 import ResNet20
from trtbuild.files import write_text

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RATE, BATCH, TEMPERATURE = 0.01, 32, 4.0


def images(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images, NCHW, and labels."""
    with np.load(path) as arrays:
        pixels, labels = arrays["x"], arrays["y"]
    normal = ((pixels / 255.0 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(normal)), torch.from_numpy(labels)


class Task:
    """The data, and the two functions called by the compression."""

    def __init__(self, folder: Path) -> None:
        parts = [images(folder / f"calib_{kind}_1024.npz") for kind in ("exact", "jpeg")]
        self.images = torch.cat([part[0] for part in parts])
        self.labels = torch.cat([part[1] for part in parts])
        self.test_images, self.test_labels = images(folder / "test_jpeg_2000.npz")
        with np.load(folder / "resnet20.npz") as arrays:
            self.weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def dense(self) -> nn.Module:
        """Return the trained network."""
        module = ResNet20()
        module.load_state_dict(self.weights, strict=False)
        return module.eval()

    def train(self, module: nn.Module, epoch: int, epochs: int, teacher: nn.Module) -> None:
        """Train one epoch towards the teacher's scores, on shifted and mirrored images."""
        module.train()
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        optimizer = torch.optim.SGD(module.parameters(), rate, 0.9, weight_decay=5e-4)
        for rows in torch.randperm(len(self.images)).split(BATCH):
            batch = shifted(self.images[rows])
            with torch.no_grad():
                wanted = F.softmax(teacher(batch) / TEMPERATURE, dim=1)
            scores = module(batch)
            own = F.log_softmax(scores / TEMPERATURE, dim=1)
            loss = TEMPERATURE**2 * F.kl_div(own, wanted, reduction="batchmean")
            loss = loss + 0.1 * F.cross_entropy(scores, self.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def evaluate(self, module: nn.Module) -> float:
        """Return top-1 on the test images, in percent."""
        parts = zip(self.test_images.split(250), self.test_labels.split(250))
        right = sum(int((module(batch).argmax(1) == labels).sum()) for batch, labels in parts)
        return 100 * right / len(self.test_images)


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """Return the batch with each image shifted by up to four pixels and perhaps mirrored."""
    padded = F.pad(batch, (4, 4, 4, 4))
    moved = []
    for image in padded:
        top, left = torch.randint(0, 9, (2,)).tolist()
        part = image[:, top : top + 32, left : left + 32]
        moved.append(part.flip(2) if torch.rand(()) < 0.5 else part)
    return torch.stack(moved)


def one_seed(task: Task, seed: int, epochs: int, output: Path) -> dict[str, object]:
    """Compress once; return the results."""
    found = trtbuild.compress(
        task.dense(),
        task.train,
        task.evaluate,
        [batch.numpy() for batch in task.images.split(BATCH)],
        input="1x3x32x32",
        dynamic="batch",
        epochs=epochs,
        teacher=True,
        prune_macs=0.5,
        prune_steps=2,
        latency=False,
        effort="fast",
        train_seed=seed,
        backend="onnxruntime",
        output=output / f"seed-{seed}",
    )
    points = [
        {
            "round": p.round,
            "stage": p.stage,
            "top1_percent": p.figure,
            "macs": p.macs,
            "weight_bytes": p.weight_bytes,
        }
        for p in found.record.points
    ]
    return {"seed": seed, "verdict": found.verdict, "why": found.why, "points": points}


def main() -> None:
    """Run the seeds, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task, results = Task(given.data), []
    for seed in range(given.seeds):
        folder = given.output.parent / "compress_resnet20"
        results.append(one_seed(task, seed, given.epochs, folder))
        write_text(
            given.output, json.dumps({"epochs": given.epochs, "runs": results}, indent=1) + "\n"
        )
        print(results[-1]["why"])


if __name__ == "__main__":
    main()
