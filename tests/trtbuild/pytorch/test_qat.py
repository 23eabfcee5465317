"""Training with rounding: TensorRT's numbers, trained scales, and a build with them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tests.command import trtbuild  # noqa: E402
from trtbuild.cli.main import run  # noqa: E402
from trtbuild.errors import ModelError  # noqa: E402
from trtbuild.model.qdq import activation_pairs  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402
from trtbuild.pytorch.copies import copy_module  # noqa: E402
from trtbuild.pytorch.float64 import tensors_in  # noqa: E402
from trtbuild.pytorch.inputs import bind_inputs  # noqa: E402
from trtbuild.pytorch.parity import rounding_error  # noqa: E402
from trtbuild.pytorch.qat import (  # noqa: E402
    Place,
    freeze_quantized_layers,
    prepare_qat,
    trained_scales,
)

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = [InputSpec((2, 3, 8, 8), dynamic={0: "batch"})]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).eval()  # fmt: skip


PLACES = {
    "0": Place("x", 0.03),
    "2": Place("a", 0.02),
    "4": Place("b", 0.015),
    "7": Place("c", 0.005),
    "9": Place("is", 1.0),
    "1": Place("no layer", 1.0),
}


def rounded(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    return np.clip(np.rint(values / scale), -128, 127) * scale


def test_a_layer_rounds_as_tensorrt_does() -> None:
    module = nn.Sequential(nn.Linear(4, 3)).eval()
    qat, done = prepare_qat(module, {"0": Place("x", 0.02)})
    assert done == ["0"]
    x = torch.randn(64, 4)
    weight = module[0].weight.detach().double().numpy()
    per_channel = np.abs(weight).max(1, keepdims=True) / 127
    want = rounded(x.double().numpy(), 0.02) @ rounded(weight, per_channel).T
    want += module[0].bias.detach().numpy()
    np.testing.assert_allclose(qat(x).detach().numpy(), want, rtol=0, atol=1e-5)


def test_the_file_has_the_trained_scales_and_the_same_numbers() -> None:
    qat, done = prepare_qat(network(), PLACES)
    assert done == ["0", "2", "4", "7"]
    with torch.no_grad():
        qat[2].rounding.scale.fill_(0.025)
    result = export_onnx(qat.eval(), INPUTS, fold=False)
    pairs = {name: pair.scale for name, pair in activation_pairs(result.model).items()}
    assert sorted(pairs.values()) == pytest.approx([0.005, 0.015, 0.025, 0.03])
    kinds = [node.op_type for node in result.model.graph]
    assert kinds.count("DequantizeLinear") == 8  # every weight is rounded as well
    session = onnxruntime.InferenceSession(ir.to_proto(result.model).SerializeToString())
    x = torch.randn(5, 3, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    want = qat(x).detach().numpy()
    np.testing.assert_allclose(found, want, rtol=0, atol=0.05 * np.abs(want).max())


def test_training_finds_a_better_scale_and_leaves_the_module_given_alone() -> None:
    module = network()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    # steps ten times as large as they should be
    coarse = {path: Place(place.tensor, 10 * place.scale) for path, place in PLACES.items()}
    qat, _ = prepare_qat(module, coarse)
    x = torch.randn(64, 3, 8, 8)
    with torch.no_grad():
        want = module(x)
    optimizer = torch.optim.Adam(qat.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = nn.functional.mse_loss(qat(x), want)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    assert trained_scales(qat)["2"] != pytest.approx(0.2)
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_a_value_between_two_steps_may_go_to_either(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(4))
        module[1].weight.fill_(1.0)
    rounding, _ = prepare_qat(module, {"1": Place("a", 1.0)})
    frozen = copy_module(rounding)
    freeze_quantized_layers(frozen)
    bound = bind_inputs(frozen, [InputSpec((1, 4), low=2.5, high=2.5)])
    (values,) = tensors_in(frozen(torch.full((1, 4), 2.5)))
    (moved,) = rounding_error(frozen, bound, 1, [values])
    # each of the four goes to 2 or to 3, so the sum of 8 may be 12 at the most
    assert 0 < moved <= 0.5
    sure = bind_inputs(frozen, [InputSpec((1, 4), low=2.25, high=2.25)])
    (values,) = tensors_in(frozen(torch.full((1, 4), 2.25)))
    assert rounding_error(frozen, sure, 1, [values]) == [0.0]


def test_layers_that_read_one_tensor_share_its_scale() -> None:
    qat, _ = prepare_qat(network(), {"0": Place("x", 0.1), "2": Place("x", 0.1)})
    assert qat[0].rounding is qat[2].rounding


def test_a_module_without_a_layer_in_int8_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing to train"):
        prepare_qat(network(), {"elsewhere": Place("x", 0.1)})


SOURCE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

def train(module):
    with torch.no_grad():
        for layer in module.modules():
            if hasattr(layer, "rounding"):
                layer.rounding.scale.mul_(1.25)

def fails(module):
    raise RuntimeError("no data today")
"""


def test_the_command_trains_and_the_result_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "qat_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)
    np.savez("data.npz", x=images)
    line = "qat qat_nets:net --input 1x3x8x8 --dynamic batch --data data.npz -o out --json --train"
    try:
        found = trtbuild(capsys, *line.split(), "qat_nets:train").json
        assert found["layers"] == list(found["scales"]) == ["0", "3", "7"]
        scales = found["scales"].values()
        assert all(one["after"] == pytest.approx(1.25 * one["before"]) for one in scales)
        assert run([*line.split(), "qat_nets:fails"]) == 2
        assert "raised RuntimeError: no data today" in capsys.readouterr().err
        other = line.replace("-o out", "-o other --target rtx")
        # TensorRT for RTX runs groups of one channel in float
        assert trtbuild(capsys, *other.split(), "qat_nets:train").json["layers"] == ["0", "7"]
    finally:
        sys.modules.pop("qat_nets", None)
    build = "engine out/net.qat.onnx --quantized --float-model out/net.loaded.onnx --data data.npz"
    assert run([*build.split(), "--no-latency", "--backend", "onnxruntime", "-o", "built"]) == 0
    built = ir.load(tmp_path / "built/net.qat.int8.onnx")
    scales = {round(pair.scale, 5) for pair in activation_pairs(built).values()}
    assert {round(one["after"], 5) for one in found["scales"].values()} <= scales
