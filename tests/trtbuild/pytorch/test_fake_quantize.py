"""Modules of quantization-aware training: the file and TensorRT's form have their scales."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from trtbuild.errors import ModelError  # noqa: E402
from trtbuild.migration.prequantized import take_in  # noqa: E402
from trtbuild.model import read_model, write_model  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402
from trtbuild.pytorch.fake_quantize import freeze_fake_quantize  # noqa: E402
from trtbuild.pytorch.inputs import bind_inputs  # noqa: E402


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
    assert found.gaps == ("full/Gemm",)  # torch does not quantize the output of the mean
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
        # the output itself is quantized: sums in another order may round a value to the next step
        step = float(trained.full.activation_post_process.scale)
        steps = np.rint((given - expected) / step)
        np.testing.assert_allclose(given, expected + steps * step, rtol=0, atol=1e-5)
        assert np.abs(steps).max() <= 1
    kinds = {node.op_type for node in found.model.graph}
    assert "Clip" in kinds


def fused(kind: str) -> tuple[nn.Module, nn.Module]:
    """A prepared network that trains layers with their norms, and the same with fixed scales."""
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


class TensorQuantizer(nn.Module):
    """Like ModelOpt's and pytorch-quantization's: rounds by its amax."""

    def __init__(self, amax, unsigned=False, num_bits=8):
        super().__init__()
        self.register_buffer("_amax", amax)
        self._num_bits, self._unsigned, self._narrow_range = num_bits, unsigned, False
        self._disabled, self._if_quant = False, True

    def forward(self, x):
        if self._disabled:
            return x
        if self._amax.min() < 0:  # as in the original: torch.export cannot follow it
            raise ValueError
        bound, low = (255, 0) if self._unsigned else (127, -128)
        return torch.clamp((x * (bound / self._amax)).round(), low, bound) / (bound / self._amax)


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.full = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 4)
        self.inputs = TensorQuantizer(torch.tensor(2.5))
        self.weights = TensorQuantizer(
            self.conv.weight.detach().abs().amax((1, 2, 3), keepdim=True)
        )
        self.behind = TensorQuantizer(torch.tensor(1.5), unsigned=True)
        self.off = TensorQuantizer(torch.tensor(1.0))
        self.off._disabled = True

    def forward(self, x):
        x = nn.functional.conv2d(self.inputs(x), self.weights(self.conv.weight))
        return self.off(self.full(self.behind(torch.relu(x)).mean((2, 3))))


def test_quantizers_of_nvidias_packages_keep_their_scales(tmp_path):
    torch.manual_seed(0)
    module = Quantized().eval()
    export_onnx(module, [InputSpec((2, 3, 8, 8), dynamic={0: "batch"})], path=tmp_path / "q.onnx")
    kinds = [node.op_type for node in read_model(tmp_path / "q.onnx").graph]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 3
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(tmp_path / "q.onnx"), options)
    x = torch.randn(3, 3, 8, 8)
    (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = module(x).numpy()
    # sums in another order may round one value to the next step, which moves a mean of 36 by 1.5 / 255 / 36
    np.testing.assert_allclose(given, expected, rtol=0, atol=4 * 1.5 / 255 / 36)


def eight_bits_of_floating_point(module):
    module.inputs._num_bits = (4, 3)


def blocks(module):
    module.inputs._amax = torch.ones(3, 8)


def smoothed(module):
    module.inputs._pre_quant_scale = torch.ones(3)


@pytest.mark.parametrize("change", [eight_bits_of_floating_point, blocks, smoothed])
def test_a_quantizer_without_a_form_in_int8_is_named(change):
    module = Quantized().eval()
    change(module)
    with pytest.raises(ModelError, match="'inputs' does something other than round to INT8"):
        freeze_fake_quantize(module)


def test_a_quantizer_that_saw_no_data_is_named():
    module = Quantized().eval()
    module.inputs._amax = None
    with pytest.raises(ModelError, match=r"'inputs' rounds without a scale .*calibrate it"):
        freeze_fake_quantize(module)


@pytest.mark.parametrize("narrow", [False, True])
def test_the_lowest_step_is_that_of_the_quantizer(narrow):
    module = Quantized().eval()
    module.inputs._narrow_range = narrow
    freeze_fake_quantize(module)
    (lowest,) = module.inputs(torch.tensor([-9.0])).tolist()
    assert lowest == pytest.approx(-2.5 * (1 if narrow else 128 / 127))  # pytest's 1e-6 is 2^-20


def test_a_graph_that_torchao_only_prepared_is_refused_with_what_to_call():
    module = Net()
    kind = type("MinMaxObserver", (nn.Identity,), {"calculate_qparams": lambda self: None})
    kind.__module__ = "torchao.quantization.pt2e.observer"
    module.observer = kind()
    with pytest.raises(ModelError, match=r"'observer'.*convert_pt2e"):
        export_onnx(module, [InputSpec((2, 3, 8, 8))])


def converted(module):
    """A module prepared and converted by torch.ao."""
    kinds = torch.ao.quantization
    prepared = kinds.prepare_qat(nn.Sequential(kinds.QuantStub(qconfig=module.qconfig), module))
    prepared(torch.randn(2, 4))
    return kinds.convert(prepared.eval())


@pytest.mark.parametrize(
    ("layer", "convert"),
    [
        (lambda: nn.Linear(4, 5), converted),
        (lambda: nn.Linear(4, 5), torch.ao.quantization.quantize_dynamic),
        (lambda: nn.LSTM(4, 5), torch.ao.quantization.quantize_dynamic),
    ],
    ids=["converted", "dynamic", "dynamic LSTM"],
)
def test_integers_that_torch_packed_are_refused_with_what_to_give(layer, convert):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(layer()).train()
        net.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        net = convert(net)
    with pytest.raises(ModelError, match=r"'(0|1\.0)' was quantized by torch.ao.*float module"):
        export_onnx(net, [InputSpec((2, 4))])


def test_sums_that_torch_will_quantize_are_float():
    sums = nn.Sequential(torch.ao.nn.quantized.FloatFunctional())
    assert bind_inputs(sums, [InputSpec((2, 4))]).names == ("input",)
