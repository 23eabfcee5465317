"""Train, prune half of the channels, fine-tune, 2:4, fold, export, INT8; a table after every step.

    python samples/digits_pytorch/compress.py --output out

Needs the extras ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from network import NUM_TEST, Digits, images_and_labels
from rich.console import Console
from rich.table import Table
from torch import nn

from trtbuild import DataRecipe, EngineRecipe, build_engine
from trtbuild.backends.onnxruntime import OnnxRuntimeBackend
from trtbuild.latency.measure import MeasureOptions, measure
from trtbuild.latency.stats import summarize
from trtbuild.pytorch import InputSpec, export_onnx
from trtbuild.pytorch.cost import count_cost
from trtbuild.pytorch.inputs import bind_inputs
from trtbuild.pytorch.prune import make_masks_permanent, prune_channels, save_pruned
from trtbuild.pytorch.sparsity import check_two_four, make_two_four
from trtbuild.pytorch.spec import PruneSpec

IMAGE = [InputSpec((64, 1, 8, 8), dynamic={0: "batch"})]


@dataclass
class Step:
    """One line of the table."""

    name: str
    path: Path
    macs: int
    top1: float = 0.0
    latency_ms: float = 0.0


class Run:
    """The data, the folder, and the steps so far."""

    def __init__(self, output: Path, seed: int) -> None:
        self.output = output
        self.seed = seed
        self.steps: list[Step] = []
        images, labels = images_and_labels()
        self.test_images, self.test_labels = images[:NUM_TEST], labels[:NUM_TEST]
        self.images, self.labels = (
            torch.from_numpy(images[NUM_TEST:]),
            torch.from_numpy(labels[NUM_TEST:]),
        )
        np.savez(output / "calibration.npz", image=images[NUM_TEST:])
        np.savez(output / "test.npz", image=self.test_images, label=self.test_labels)

    def train(self, module: nn.Module, epochs: int, rate: float, batch: int = 64) -> None:
        """Train in place. A pruned module has new parameters, so every call has a new optimizer."""
        torch.manual_seed(self.seed)  # the result does not depend on earlier steps
        optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-2)
        steps = epochs * -(-len(self.images) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        module.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(self.images)).split(batch):
                loss = nn.functional.cross_entropy(module(self.images[rows]), self.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        module.eval()

    def note(self, name: str, module: nn.Module, *, fold: bool = False) -> Path:
        """Export the module and add it to the table."""
        path = self.output / f"{name.replace(' ', '_').replace(':', '_')}.onnx"
        export_onnx(module, IMAGE, path=path, fold=fold)
        macs = count_cost(module, bind_inputs(module, IMAGE)).macs
        assert macs is not None
        self.steps.append(Step(name, path, macs))
        return path

    def measure(self) -> None:
        """Accuracy of every file on the test images, and latency of a batch of 64, in turns."""
        backend = OnnxRuntimeBackend()
        sessions = {step.name: backend.open(step.path) for step in self.steps}
        for step in self.steps:
            scores = next(iter(sessions[step.name].run({"image": self.test_images}).values()))
            step.top1 = 100 * float((scores.argmax(1) == self.test_labels).mean())
        options = MeasureOptions(warmup_ms=50, duration_ms=1500)
        taken = measure(sessions, [{"image": self.test_images[:64]}], options)
        for step in self.steps:
            step.latency_ms = summarize(taken[step.name]).median_ms

    def table(self) -> Table:
        """One row per step."""
        table = Table("step", "top-1 %", "MACs", "of dense", "bytes", "ms, batch 64")
        for step in self.steps:
            table.add_row(
                step.name, f"{step.top1:.2f}", f"{step.macs:,}", f"{step.macs / self.steps[0].macs:.2f}",
                f"{step.path.stat().st_size:,}", f"{step.latency_ms:.2f}",
            )  # fmt: skip
        return table


def compress(output: Path, epochs: int = 12, tuning_epochs: int = 3, seed: int = 0) -> list[Step]:
    """Do all steps; return the table's lines."""
    torch.manual_seed(seed)
    run = Run(output, seed)
    dense = Digits()
    run.train(dense, epochs, 5e-3, batch=32)
    run.note("dense", dense)

    pruned = prune_channels(dense, IMAGE, PruneSpec(0.5, round_to=8))
    run.note("half of the channels", pruned.module)
    run.train(pruned.module, tuning_epochs, 1e-2)
    run.note("fine-tuned", pruned.module)
    save_pruned(pruned.module, pruned.history, output / "pruned")

    make_two_four(pruned.module)
    run.train(pruned.module, tuning_epochs, 5e-3)  # the masks keep the zeros
    make_masks_permanent(pruned.module)
    run.note("2:4 and fine-tuned", pruned.module)

    path = run.note("folded", pruned.module, fold=True)
    export = export_onnx(pruned.module, IMAGE)
    sparse = [node.node for node in check_two_four(export.model) if node.holds]
    data = DataRecipe(data=str(output / "calibration.npz"), verify_data=str(output / "test.npz"))
    engine = build_engine(
        EngineRecipe(
            model=path,
            output=output / "int8",
            data=data,
            backend="onnxruntime",
            latency=None,
            batch_size=64,
        )
    )
    run.steps.append(Step("INT8", engine.engine.path, run.steps[-1].macs))
    run.measure()
    console = Console()
    console.print(run.table())
    console.print(f"2:4 in the exported file: {', '.join(sparse)}")
    return run.steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    compress(given.output, given.epochs, seed=given.seed)
