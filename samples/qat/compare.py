"""A network that loses accuracy in INT8: the default build against training with rounding, in a table.

    python samples/qat/compare.py --output out --seeds 3

Needs the extras ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
from pathlib import Path

import network
import numpy as np
import onnxruntime
import torch

CALIBRATION_SCENES, TEST_SCENES = 200, 2000


def compare(output: Path, seed: int, epochs: int = 40) -> dict[str, float]:
    """Train, build in each way; return the percentage of test scenes that each finds."""
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    np.savez(output / "calibration.npz", image=network.scenes(CALIBRATION_SCENES)[0])
    torch.manual_seed(seed)
    module = network.Mobile()
    network.fit(module, epochs, 5e-3)
    longer = copy.deepcopy(module)
    network.train(longer)
    results = {}
    for name, one in (("float", module), ("float, trained on", longer)):
        weights = output / f"{name.replace(', ', '-').replace(' ', '-')}.pt"
        torch.save(one.state_dict(), weights)
        results[name], results[f"{name}: default build"] = built(weights, output)
    run(
        "qat",
        *source(output / "float.pt"),
        *data(output),
        "--train",
        "network:train",
        "-o",
        str(output),
    )
    results["float: trained with rounding"] = found(output / "Mobile.qat.onnx")
    return results


def source(weights: Path) -> list[str]:
    """Arguments that name the module for trtbuild."""
    return [
        "network:Mobile", "--weights", str(weights), "--input", "1x1x20x20", "--dynamic", "batch"
    ]  # fmt: skip


def data(output: Path) -> list[str]:
    """Arguments that name the calibration scenes."""
    return ["--data", str(output / "calibration.npz")]


def built(weights: Path, output: Path) -> tuple[float, float]:
    """Build in INT8 with the defaults; return the percentages of the float network and of the INT8 one."""
    folder = output / weights.stem
    how = ["--int8", *data(output), "--backend", "onnxruntime", "--no-latency"]
    run("engine", *source(weights), *how, "-o", str(folder))
    return found(folder / "Mobile.onnx"), found(folder / "Mobile.int8.onnx")


def run(*arguments: str) -> None:
    """Run trtbuild in the folder of `network.py`; exit code 1 (an engine is not good enough) is accepted."""
    command = [sys.executable, "-m", "trtbuild", *arguments, "-q"]
    if subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode not in (0, 1):
        raise SystemExit(f"trtbuild {arguments[0]} failed")


def found(path: Path) -> float:
    """Percentage of the test scenes in which a network finds the digit, run without optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    images, positions = network.scenes(TEST_SCENES, test=True)
    (given,) = session.run(None, {"image": images})
    return network.found(given, positions)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    for seed in range(given.seeds):
        for name, value in compare(given.output / f"seed-{seed}", seed).items():
            print(f"seed {seed}  {name:36} {value:6.2f} %", flush=True)


if __name__ == "__main__":
    main()
