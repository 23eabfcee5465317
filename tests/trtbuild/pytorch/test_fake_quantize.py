"""Modules of quantization-aware training: their scales reach the file, and TensorRT's form of it."""

from __future__ import annotations

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
