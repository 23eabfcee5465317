"""Small networks and data as files, and calls of the command line on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from trtbuild.cli.main import run

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[3]
DIGITS = ROOT / "samples" / "quickstart"
NUM_IMAGES = 96


def digits(folder: Path, count: int = NUM_IMAGES) -> tuple[Any, ...]:
    """The quickstart's network, and its data cut to `count` images, as arguments of `calibrate`."""
    data = folder / "images.npz"
    np.savez(data, image=digit_images()[:count])
    return digits_with(data)


def digit_images() -> np.ndarray:
    with np.load(DIGITS / "calibration.npz") as stored:
        return stored["image"]


def digits_with(data: Path | str) -> tuple[Any, ...]:
    return (DIGITS / "digits.onnx", "--data", data, "--preprocess", DIGITS / "digits.toml")


def calibrate(*arguments: object) -> int:
    return run(["calibrate", *map(str, arguments)])


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = calibrate(*arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write_network(path: Path, text: str, **weights: np.ndarray) -> Path:
    """Write the network of `text` (ONNX's text format) with `weights` as initializers."""
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path
