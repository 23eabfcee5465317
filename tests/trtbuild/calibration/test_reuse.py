"""Reusing a calibration: refused for another graph, checked on samples when something changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from tests.trtbuild.calibration.small_files import DIGITS, calibrate, digits, write_network
from trtbuild.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Any, ...]]:
    """A calibration of the quickstart's network, and the options that name its data."""
    folder = tmp_path_factory.mktemp("made")
    _, *data = digits(folder)
    assert calibrate(DIGITS / "digits.onnx", *data, "-q", "-o", folder / "ranges.json") == 0
    return folder / "ranges.json", tuple(data)


def engine(network: Path, *options: object) -> int:
    fixed = ("--int8", "--backend", "onnxruntime", "--no-latency")
    return run([str(argument) for argument in ("engine", network, *fixed, *options)])


def spot_checks(folder: Path) -> list[dict[str, Any]]:
    (manifest,) = folder.glob("*.manifest.json")
    stages = json.loads(manifest.read_text())["stages"]
    return [stage for stage in stages if stage["stage"] == "spot check"]


def test_nothing_changed_and_nothing_is_said(made, tmp_path, capsys) -> None:
    ranges, data = made
    assert engine(DIGITS / "digits.onnx", *data, "--calibration", ranges, "-o", tmp_path) == 0
    assert "changed since the calibration" not in capsys.readouterr().out
    assert spot_checks(tmp_path) == []


def test_other_samples_of_the_same_kind_are_no_reason_to_warn(made, tmp_path, capsys) -> None:
    ranges, data = made
    with np.load(data[1]) as arrays:
        np.savez(tmp_path / "few.npz", image=arrays["image"][::2])
    options = ("--data", tmp_path / "few.npz", *data[2:], "--calibration", ranges)
    assert engine(DIGITS / "digits.onnx", *options, "-o", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the data differ from those of the calibration; " in said
    assert "note: the data" not in said


def test_changed_weights_are_spot_checked_and_the_drift_is_told(made, tmp_path, capsys) -> None:
    """The first convolution's weights are doubled, so its activations double."""
    ranges, data = made
    model = onnx.load(DIGITS / "digits.onnx")
    first = model.graph.node[0]
    assert first.op_type == "Conv"
    for weight in model.graph.initializer:
        if weight.name == first.input[1]:
            doubled = 2 * onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(doubled, weight.name))
    onnx.save(model, tmp_path / "digits.onnx")
    out = tmp_path / "out"
    assert engine(tmp_path / "digits.onnx", *data, "--calibration", ranges, "-o", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: weights changed since the calibration" in said
    (record,) = spot_checks(out)
    details = record["details"]
    assert details["changed"] == ["weights"]
    assert 1 <= details["num_samples"] <= 64
    name, ratio = next(iter(details["ratios"].items()))
    assert f"the largest magnitude of '{name}' is {ratio:.2f} times what it was" in said
    # the input has not changed; magnitudes have grown after the doubled layer
    assert details["ratios"]["image"] == pytest.approx(1, abs=0.05)
    assert max(details["ratios"].values()) > 1.3


def test_changed_preprocessing_is_told_too(made, tmp_path, capsys) -> None:
    ranges, data = made
    out = tmp_path / "out"
    options = (*data, "--scale", 0.125, "--calibration", ranges, "-o", out)
    assert engine(DIGITS / "digits.onnx", *options) == 0
    assert "note: preprocessing changed since the calibration" in capsys.readouterr().out
    (record,) = spot_checks(out)
    assert record["details"]["ratios"]["image"] == pytest.approx(2, rel=0.05)


def test_no_limit_ships_ranges_that_grown_data_exceed(made, tmp_path, capsys) -> None:
    """One image in four is three times as bright as any image of the calibration."""
    ranges, data = made
    with np.load(data[1]) as arrays:
        kept = dict(arrays)
    name = "image"
    kept[name] = np.concatenate([kept[name], 3.0 * kept[name][::3]]).astype(kept[name].dtype)
    np.savez(tmp_path / "grown.npz", **{name: kept[name]})
    options = ("--data", tmp_path / "grown.npz", *data[2:], "--task", "classify")
    limit = ("--min-agreement", 1, "--calibration", ranges, "-o", tmp_path / "out")
    assert engine(DIGITS / "digits.onnx", *options, *limit) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "NOT JUDGED: every limit holds, but ranges are reused, and '" in said
    assert "what next: calibrate anew: " in said


def test_another_graph_is_refused(made, tmp_path, capsys) -> None:
    ranges, _ = made
    text = '<ir_version: 8, opset_import: ["" : 17]> o (float[N, 4] x) => (float[N, 4] y) {y = Relu (x)}'
    other = write_network(tmp_path / "other.onnx", text)
    np.savez(tmp_path / "x.npz", x=np.ones((9, 4), np.float32))
    data = ("--data", tmp_path / "x.npz", "-o", tmp_path / "out")
    assert engine(other, *data, "--calibration", ranges) == 2
    assert "belongs to another graph" in capsys.readouterr().err


def test_a_damaged_file_is_an_error_of_the_user(made, tmp_path, capsys) -> None:
    ranges, data = made
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(ranges.read_bytes()[:1000])
    options = (*data, "--calibration", damaged, "-o", tmp_path / "out")
    assert engine(DIGITS / "digits.onnx", *options) == 2
    error = capsys.readouterr().err
    assert "damaged.json' is not a calibration file" in error
    assert "Traceback" not in error
