"""A network that INT8 hurts: four ways to quantize it, one of which trains; a table of top-1.

    python samples/qat/compare.py --output out

Needs the extras ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import network
import numpy as np
import onnxruntime
import torch

CALIBRATION_IMAGES = 64
CALIBRATED = {
    "minmax": ("--calibrator", "minmax"),
    "entropy": ("--calibrator", "entropy"),
    "ranges by their effect (the default)": (),
}


def compare(output: Path, epochs: int = 12) -> dict[str, float]:
    """Train, spread the channels' sizes, quantize in each way; what each is right in, in percent."""
    output = output.resolve()
    images, labels = network.images_and_labels()
    torch.manual_seed(0)
    module = network.Mobile()
    network.fit(module, epochs, 5e-3)
    network.spread(module)
    torch.save(module.state_dict(), output / "float.pt")
    data = output / "calibration.npz"
    np.savez(data, image=images[network.NUM_TEST :][:CALIBRATION_IMAGES])

    source = ["network:Mobile", "--weights", str(output / "float.pt"), "--input", "1x1x8x8"]
    wish = ["--dynamic", "batch", "--data", str(data), "--train", "network:train", "-q"]
    run("qat", *source, *wish, "-o", str(output))
    float_model = output / "Mobile.loaded.onnx"
    found = {"float": top1(float_model, images, labels)}
    for number, (name, options) in enumerate(CALIBRATED.items()):
        folder = output / str(number)
        how = ["--int8", "--data", str(data), "--backend", "onnxruntime", "--no-latency", *options]
        run("engine", str(float_model), *how, "-o", str(folder), "-q")
        found[name] = top1(folder / "Mobile.loaded.int8.onnx", images, labels)
    found["trained with rounding"] = top1(output / "Mobile.qat.onnx", images, labels)
    return found


def run(*arguments: str) -> None:
    """Run trtbuild beside `network.py`; exit code 1 says that an engine is not good enough."""
    command = [sys.executable, "-m", "trtbuild", *arguments]
    if subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode not in (0, 1):
        raise SystemExit(f"trtbuild {arguments[0]} failed")


def top1(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Percent of the test images that a network is right in, computed as the file says."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    (scores,) = session.run(None, {"image": images[: network.NUM_TEST]})
    return 100 * float((scores.argmax(1) == labels[: network.NUM_TEST]).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, value in compare(output).items():
        print(f"{name:40} {value:6.2f} %")


if __name__ == "__main__":
    main()
