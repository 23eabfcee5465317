"""``trtbuild verify`` with a PyTorch module as the float reference."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.parser
import pytest

pytest.importorskip("torch", reason="needs torch")

from tests.command import FAST
from trtbuild.cli.main import run

MODULE = """
import torch
from torch import nn


def small(outputs=1):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )
    return net if outputs == 1 else Twice(net)


class Stateful(nn.Module):
    # a state that runs over the samples along its second axis, in and out

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(8, 8)

    def forward(self, x, state):
        return self.net(x), state + self.net(x)[None]


class Twice(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x), self.net(x)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "verified_module.py").write_text(MODULE)
    images = np.random.default_rng(0).normal(size=(48, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=images)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        shape = ["--input", "1x3x8x8", "--data", "data.npz", "--no-latency", "-q", "-o", "out"]
        assert run(["engine", "verified_module:small", "--int8", *shape, *FAST]) == 0
    return folder


def verify(folder, monkeypatch, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return run(["verify", *arguments, "out/small.int8.onnx", "--data", "data.npz", "--json"])


def test_the_module_itself_is_the_reference(engine, monkeypatch, capsys):
    assert verify(engine, monkeypatch, "out/small.onnx") == 0
    exported = json.loads(capsys.readouterr().out)["comparison"]["outputs"][0]["sqnr_db"]["value"]
    assert verify(engine, monkeypatch, "verified_module:small") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == "verified_module:small"
    # the module and its export differ by float32 rounding (1e-7, 140 dB), far below INT8's error
    assert found["comparison"]["outputs"][0]["sqnr_db"]["value"] == pytest.approx(
        exported, abs=0.01
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verified_module:small", "--layers"], "as an ONNX file"),
        (["verified_module:small", "--arg", "outputs=2"], "returns 2 tensors"),
        (["verified_module:absent"], "absent"),
    ],
)
def test_what_does_not_fit_is_one_sentence(engine, monkeypatch, capsys, arguments, said):
    assert verify(engine, monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_options_of_a_module_go_with_a_module_alone(engine, monkeypatch, capsys):
    assert verify(engine, monkeypatch, "out/small.onnx", "--weights", "x.pt") == 2
    assert "--weights is for a PyTorch module" in capsys.readouterr().err


def test_an_axis_that_was_said_holds_of_the_module_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "stateful_module.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 8)).astype(np.float32)
    state = rng.normal(size=(1, 24, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, state=state)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    axes = ["--batch-axis", "state:1", "--batch-axis", "sum:1"]
    # like files of other tools, the file does not describe its axes
    import stateful_module

    linear = stateful_module.Stateful().net
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        net (float[4, 8] x, float[1, 4, 8] state) => (float[4, 8] y, float[1, 4, 8] sum) {
            p = MatMul(x, w)
            y = Add(p, c)
            axes = Constant <value_ints = [0]> ()
            u = Unsqueeze(y, axes)
            sum = Add(state, u)
        }"""
    )
    for name, weight in (("w", linear.weight.T), ("c", linear.bias)):
        tensor = onnx.numpy_helper.from_array(weight.detach().numpy().copy(), name)
        model.graph.initializer.append(tensor)
    onnx.save(model, "net.onnx")
    command = ["verify", "stateful_module:Stateful", "net.onnx", "--data", "data.npz", "--json"]
    assert run([*command, *axes]) == 0
    outputs = json.loads(capsys.readouterr().out)["comparison"]["outputs"]
    assert [output["num_images"] for output in outputs] == [24, 24]
    assert run([*command, "--batch-axis", "nosuch:1"]) == 2
    assert "names 'nosuch'" in capsys.readouterr().err
