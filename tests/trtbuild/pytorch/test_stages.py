"""Figures and limits of a module's build are relative to the loaded module."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from trtbuild.cli.main import run  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, and images labelled with its own classes."""
    (tmp_path / "stage_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import stage_nets

    images = np.random.default_rng(0).normal(size=(400, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        labels = stage_nets.net().eval()(torch.from_numpy(images)).argmax(1).numpy()
    np.savez("data.npz", x=images, y=labels)
    yield tmp_path
    sys.modules.pop("stage_nets", None)


BUILD = (
    "engine stage_nets:net --input 1x1x8x8 --dynamic batch --int8 --data data.npz --labels data.npz "
    "--no-latency --effort fast --backend onnxruntime -o out"
)


def test_the_reference_is_the_loaded_module(here: Path) -> None:
    assert run([*BUILD.split(), "--prune", "0.5", "--max-top1-drop", "1"]) == 1
    record = json.loads((here / "out/net.manifest.json").read_text())
    found = next(one for one in record["stages"] if one["stage"] == "stages")["details"]["rows"]
    rows = {row["stage"]: row for row in found}
    assert list(rows) == ["loaded, folded", "pruned", "weights in INT8", "TensorRT form", "engine"]
    assert rows["loaded, folded"]["top1_percent"] == 100
    assert rows["pruned"]["lost_points"] > 1
    assert rows["pruned"]["macs"] < rows["loaded, folded"]["macs"] / 2
    # a byte a weight, and four a bias
    assert rows["weights in INT8"]["weight_bytes"] < rows["pruned"]["weight_bytes"] / 2
    assert (here / "out/net.loaded.onnx").is_file()


def test_a_stage_has_a_limit_of_its_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*BUILD.split(), "--max-stage-drop", "weights=50"]) == 0
    assert "are relative to the module as it was loaded" in " ".join(
        capsys.readouterr().out.split()
    )
    assert run([*BUILD.split(), "--max-stage-drop", "pruned=50"]) == 2
    assert "no such stage" in capsys.readouterr().err
    assert run([*BUILD.split(), "--prune", "0.5", "--max-stage-drop", "pruned=0"]) == 1


def test_weights_alone_are_an_engine_and_every_step_has_a_limit_and_a_time(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*BUILD.replace("--no-latency", "--seconds 0.05").split(), "--weights-only"]
    limits = ["--max-stage-drop", "form=100", "--max-stage-drop", "engine=0"]
    assert run([*line, "--prune", "0.5", *limits]) == 1
    record = json.loads((here / "out/net.manifest.json").read_text())
    found = next(one for one in record["stages"] if one["stage"] == "stages")["details"]["rows"]
    rows = {row["stage"]: row for row in found}
    assert rows["TensorRT form"]["weight_bytes"] < rows["pruned"]["weight_bytes"] / 2
    assert all(rows[name]["latency_ms"] > 0 for name in ("loaded, folded", "pruned", "engine"))
    assert not (here / "out/net.calibration.json").exists()
    assert all(not one["int8"] for one in record["layers"])
    engine = onnx.load(here / "out/net.onnxruntime.onnx")
    kinds = {node.op_type for node in engine.graph.node}
    assert "DequantizeLinear" in kinds
    assert "QuantizeLinear" not in kinds  # no activation is rounded
    told = " ".join(capsys.readouterr().out.split())
    assert "engine: top-1 lost" in told


def test_a_step_is_limited_without_labels_by_its_task(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = BUILD.replace(" --labels data.npz", "").split()
    limits = ["--max-stage-drop", "weights=90", "--max-stage-drop", "pruned=0"]
    assert run([*line, "--task", "classify", "--prune", "0.5", *limits]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "weights in INT8: same class" in told
    assert run([*line, "--max-stage-drop", "weights=5"]) == 2
    assert "needs labels" in capsys.readouterr().err
