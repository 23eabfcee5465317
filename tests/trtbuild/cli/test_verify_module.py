"""``trtbuild verify`` with a PyTorch module as the float reference."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

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
        assert run(["engine", "verified_module:small", "--int8", *shape]) == 0
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
        (["verified_module:small", "--arg", "outputs=2"], "answers 2 tensors"),
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
