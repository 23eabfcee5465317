"""Modules of quantization-aware training: their scales reach the file, and TensorRT's form of it."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from trtbuild.migration.prequantized import take_in  # noqa: E402
from trtbuild.model import read_model, write_model  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.full = nn.Linear(8, 4)

    def forward(self, x):
        return self.full(torch.relu(self.conv(self.quant(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def trained():
    """A module that torch.ao has prepared and that has seen data; 7 bits for activations, per channel."""
    torch.manual_seed(0)
    net = Net().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        net = torch.ao.quantization.prepare_qat(net)
    for _ in range(4):
        net(torch.randn(8, 3, 8, 8))
    return net.eval().apply(torch.ao.quantization.disable_observer)


def test_scales_of_training_are_those_of_the_file(trained, tmp_path):
    before = {name: buffer.clone() for name, buffer in trained.named_buffers()}
    export_onnx(trained, [InputSpec((2, 3, 8, 8))], path=tmp_path / "q.onnx")
    for name, buffer in trained.named_buffers():
        assert torch.equal(buffer, before[name])
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = trained(x).numpy()
    found = take_in(read_model(tmp_path / "q.onnx"))
    assert found.gaps == ("full/Gemm",)  # torch rounds nothing behind the mean
    assert {d.node: d.int8 for d in found.decisions if d.op_type in ("Conv", "Gemm")} == {
        "conv/Conv": True,
        "full/Gemm": True,
    }
    write_model(found.model, tmp_path / "t.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for file in ("q.onnx", "t.onnx"):
        session = ort.InferenceSession(str(tmp_path / file), options)
        (name,) = (one.name for one in session.get_inputs())
        (given,) = session.run(None, {name: x.numpy()})
        # the output itself is in steps: sums in another order may round a value to the next one
        step = float(trained.full.activation_post_process.scale)
        steps = np.rint((given - expected) / step)
        np.testing.assert_allclose(given, expected + steps * step, rtol=0, atol=1e-5)
        assert np.abs(steps).max() <= 1
    kinds = {node.op_type for node in found.model.graph}
    assert "Clip" in kinds


def fused(kind: str) -> tuple[nn.Module, nn.Module]:
    """A network whose layers train with their norms, prepared, and it with scales that are fixed."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4),
    ).train()  # fmt: skip
    kinds = torch.ao.quantization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "graph":
            from torch.ao.quantization.quantize_fx import prepare_qat_fx

            wish = kinds.get_default_qat_qconfig_mapping("x86")
            net = prepare_qat_fx(net, wish, (torch.randn(2, 3, 8, 8),))
        else:
            net = kinds.fuse_modules_qat(net, [["0", "1", "2"], ["3", "4"], ["7", "8"]])
            net.qconfig = kinds.get_default_qat_qconfig("fbgemm")
            net = kinds.prepare_qat(net)
        for _ in range(4):
            net(torch.randn(8, 3, 8, 8) + 1)
    return net.eval(), copy.deepcopy(net).apply(kinds.disable_observer)


@pytest.mark.parametrize("kind", ["graph", "eager"])
def test_norms_that_are_trained_with_their_layer_go_into_its_weights(kind, tmp_path):
    # in the graph one observer stands on both sides of the pooling
    module, still = fused(kind)
    export_onnx(module, [InputSpec((2, 3, 8, 8))], path=tmp_path / "q.onnx")
    kinds = [node.op_type for node in read_model(tmp_path / "q.onnx").graph]
    assert not {"BatchNormalization", "Div", "Mul", "Add"} & set(kinds)
    roundings = [
        one for one in still.modules() if isinstance(one, torch.ao.quantization.FakeQuantizeBase)
    ]
    assert kinds.count("QuantizeLinear") >= len(roundings)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = still(x).numpy()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(tmp_path / "q.onnx"), options)
    (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    # norm and weight are multiplied in another order, and a value may round to the next step
    step = float(roundings[-1].scale)
    steps = np.rint((given - expected) / step)
    np.testing.assert_allclose(given, expected + steps * step, rtol=0, atol=1e-5)
    assert np.abs(steps).max() <= 1
