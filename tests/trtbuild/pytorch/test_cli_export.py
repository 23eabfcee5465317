"""``trtbuild export`` from the command line: files, JSON, exit codes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import pytest

pytest.importorskip("torch")

from tests.command import trtbuild
from trtbuild.cli.main import run
from trtbuild.options.values import names_function

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import torch
from torch import nn

def net(width=4, flat=False):
    layers = [nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Flatten()] if flat else []))

def broken():
    raise RuntimeError("no such width")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cli_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("cli_nets", None)


def test_export_folds_names_and_records(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "export cli_nets:net --arg width=6 --arg flat=true --input 2x3x8x8 --dynamic batch -o m.onnx"
    said = trtbuild(capsys, *line.split(), "--json")
    result = said.json
    assert result["fold"]["fates"] == [
        {"norm": "1", "kind": "BatchNorm2d", "outcome": "folded", "into": ["0"], "reason": ""}
    ]
    assert result["steps"]["source"]["arguments"] == {"width": "6", "flat": "True"}
    assert result["parity"]["relative_error"] < 1e-6
    assert "norms: 1 folded, 0 left" in said.err
    model = onnx.load(here / "m.onnx")
    assert [node.name for node in model.graph.node][:2] == ["0", "2"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_layer_times_name_every_leaf(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            [
                *[
                    "export",
                    "cli_nets:net",
                    "--input",
                    "2x3x8x8",
                    "-o",
                    "m.onnx",
                    "--layer-times",
                    "--json",
                ]
            ]
        )
        == 0
    )
    times = json.loads(capsys.readouterr().out)["layer_times"]
    assert {time["path"] for time in times} == {"0", "1", "2"}
    assert sum(time["share"] for time in times) == pytest.approx(1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("export cli_nets:net", "needs its input shape"),
        ("export cli_nets:net --input 2x", "is not [name:]dims"),
        ("export cli_nets:net --input 2x0x8x8", "must be at least 1"),
        ("export cli_nets:net --input 2x3x8x8:complex", "'complex' is not one of"),
        ("export cli_nets:net --input 2x3x8x8 --dynamic y:0=b", "no --input is named 'y'"),
        ("export cli_nets:net --input 2x3x8x8 --dynamic 7=b", "dynamic axis 7"),
        ("export cli_nets:net --input 2x3x8x8 --dynamic 0=", "dynamic axes '0='"),
        ("export cli_nets:net --input 2x3x8x8 --arg 5", "is not name=value"),
        ("export cli_nets:net --input 2x3x8x8 --opset 9", "too old"),
        ("export cli_nets:net --input 2x4x8x8", "in '0'"),
        ("export cli_nets:broken --input 2x3x8x8", "RuntimeError: no such width"),
        ("export cli_nets:net --input 2x3x8x8 --weights gone.pt", "is not a file"),
    ],
)
def test_wrong_input(here: Path, capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    assert run([*line.split(), "-o", "m.onnx"]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""
    assert not (here / "m.onnx").exists()


def test_help_and_target_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from trtbuild.cli.main import run\n"
        "assert run(['export', '--help']) == 0\n"
        "import trtbuild.pytorch\n"
        "code = run(['export', 'a:b', '--input', '1x3'])\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'trtbuild[torch]'" in done.stderr


def test_module_targets(here: Path) -> None:
    assert names_function("pkg.models:factory")
    assert names_function("nets:Space.inner")
    assert not names_function("model.onnx")
    assert not names_function("C:model.onnx/x")
    (here / "odd:name").touch()
    assert not names_function("odd:name")


PRUNABLE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )
"""


@pytest.fixture
def prunable(here: Path) -> Path:
    pytest.importorskip("torch_pruning")
    (here / "cli_nets.py").write_text(PRUNABLE)
    return here


def test_prune_then_export(prunable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "prune cli_nets:net --input 2x3x8x8 --prune 0.5 -o small --json"
    said = trtbuild(capsys, *line.split())
    result = said.json
    assert result["folder"] == "small"
    assert result["pruning"]["achieved"] == 0.5
    assert "nothing was fine-tuned" in said.err
    assert "it gives the network's output" in said.err
    assert sorted(file.name for file in (prunable / "small").iterdir()) == [
        "pruning.json", "weights.safetensors",
    ]  # fmt: skip
    line = "export cli_nets:net --weights small --sparsity 2:4 --input 2x3x8x8 -o m.onnx --json"
    result = trtbuild(capsys, *line.split()).json
    assert {node["node"]: node["holds"] for node in result["steps"]["sparse_nodes"]} == {
        "0": False, "3": True, "7": True,
    }  # fmt: skip
    shapes = {t.name: list(t.dims) for t in onnx.load(prunable / "m.onnx").graph.initializer}
    assert shapes["3.weight"] == [32, 16, 3, 3]


def test_export_prunes_by_itself(prunable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "export cli_nets:net --input 2x3x8x8 --prune 0 --prune-layer 3=0.75 --prune-criterion l1"
    steps = trtbuild(capsys, *line.split(), "-o", "m.onnx", "--json").json["steps"]
    assert steps["cost"]["exported"]["macs"] < steps["cost"]["loaded"]["macs"]
    widths = steps["pruning"]["widths"]
    assert {layer["path"]: layer["after"] for layer in widths} == {"0": 32, "3": 16, "7": 10}


def test_export_masks_weights_globally(prunable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "export cli_nets:net --input 2x3x8x8 --mask 50% --mask-globally -o m.onnx --json"
    masks = trtbuild(capsys, *line.split()).json["steps"]["masks"]
    assert masks["zero_share"] == pytest.approx(0.5, abs=1e-4)
    assert len(set(masks["layers"].values())) == 3  # one ranking, so every layer has its own share
    weights = onnx.load(prunable / "m.onnx").graph.initializer
    zeros = next(onnx.numpy_helper.to_array(t) == 0 for t in weights if t.name == "3.weight")
    assert zeros.mean() == pytest.approx(masks["layers"]["3"])
    assert run([*line.split()[:4], "--mask", "1", "-o", "n.onnx"]) == 2
    assert "could be one weight or all" in capsys.readouterr().err


def test_slices_of_some_layers_are_masked_and_what_a_checkpoint_masks_goes(
    prunable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "export cli_nets:net --input 2x3x8x8 --mask 25% --mask-dim 0 --mask-layers Conv* -o m.onnx --json"
    masks = trtbuild(capsys, *line.split()).json["steps"]["masks"]["layers"]
    assert masks == {"0": 0.25, "3": 0.25, "7": 0.0}
    from trtbuild.pytorch.prune import mask_slices

    module = importlib.import_module("cli_nets").net()
    mask_slices(module, 0.25, layers=["re:[03]"])
    torch = pytest.importorskip("torch")
    torch.save(module.state_dict(), prunable / "masked.pt")
    line = "prune cli_nets:net --weights masked.pt --input 2x3x8x8 --prune-masked --json"
    widths = trtbuild(capsys, *line.split()).json["pruning"]["widths"]
    assert {layer["path"]: layer["after"] for layer in widths} == {"0": 24, "3": 48, "7": 10}


def test_prune_lists_groups_without_pruning(
    prunable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "prune cli_nets:net --input 2x3x8x8 --list-groups --json"
    said = trtbuild(capsys, *line.split())
    assert [group["root"] for group in said.json["groups"] if group["kept"]] == ["7"]
    text = said.err
    assert "7: 10 channels, kept: it gives the network's output" in text
    assert "3: 32 input channels, because of 1" in text
    assert not (prunable / "pruned").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "say how much to remove"),
        ("--prune 1.2", "out of range"),
        ("--prune-layer 0", "is not PATTERN=RATIO"),
        ("--prune 0.5 --prune-ignore nothing", "matches no layer"),
    ],
)
def test_wrong_pruning(
    prunable: Path, capsys: pytest.CaptureFixture[str], options: str, told: str
) -> None:
    assert run(["prune", "cli_nets:net", "--input", "2x3x8x8", *options.split()]) == 2
    assert told in capsys.readouterr().err
    assert not (prunable / "pruned").exists()
