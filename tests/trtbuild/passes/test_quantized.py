"""Networks with Q/DQ: converted to TensorRT's form without loss."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.trtbuild.passes.networks import answers, network, ops, optimized
from trtbuild.passes import OptimizeOptions, optimize

RANDOM = np.random.default_rng(5)
LAYER = (
    "t (float[1,4,6,6] x) => (float[1,4,6,6] y) {"
    " q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
    " w = DequantizeLinear<axis=0>(w8, ws) b = DequantizeLinear<axis=0>(b32, bs)"
    " c = Conv(d, w, b) r = Relu(c)"
    " o = QuantizeLinear(r, s2, z2) y = DequantizeLinear(o, s2, z2) }"
)


def weights(zero):
    return {
        "s": np.array(0.03, np.float32),
        "z": np.array(zero, zero.dtype),
        "w8": RANDOM.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
        "ws": np.linspace(0.01, 0.04, 4, dtype=np.float32),
        "b32": RANDOM.integers(-9999, 9999, 4).astype(np.int32),
        "bs": np.linspace(0.0003, 0.0012, 4, dtype=np.float32),
        "s2": np.array(0.05, np.float32),
        "z2": np.array(zero, zero.dtype),
    }


def test_layer_of_onnx_runtime_becomes_one_of_tensorrt_exactly():
    result = optimized(network(LAYER, weights(np.uint8(128))))
    assert ops(result) == {"Conv": 1, "DequantizeLinear": 3, "QuantizeLinear": 2, "Relu": 1}
    kinds = [value.dtype for node in result.model.graph for value in node.outputs]
    assert ir.DataType.UINT8 not in kinds
    assert kinds.count(ir.DataType.INT8) == 2
    (conv,) = (node for node in result.model.graph if node.op_type == "Conv")
    assert conv.inputs[2].is_initializer()


def test_asymmetric_activations_need_to_be_asked_for():
    model = network(LAYER, weights(np.uint8(100)))
    plain = optimize(model)
    assert "not 128" in plain.log.declined["make_qdq_signed"][0].text
    result = optimize(model, OptimizeOptions(enable=["make_qdq_symmetric"]))
    assert not result.log.rolled_back
    zeros = [
        node.inputs[2].const_value.numpy()
        for node in result.model.graph
        if node.op_type.endswith("quantizeLinear") or node.op_type == "QuantizeLinear"
        if len(node.inputs) > 2
    ]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    wanted, got = answers(model)[0], answers(result.model)[0]
    # both round to steps of at most 0.05 * 155 / 127; one layer of weights around 0.1 in between
    assert np.abs(wanted - got).mean() < 0.05


def test_a_missing_per_channel_axis_is_written():
    text = "t (float[2,4] x) => (float[2,4] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    model = network(text, {"s": np.full(4, 0.1, np.float32), "z": np.zeros(4, np.int8)})
    result = optimized(model)
    assert [node.attributes["axis"].value for node in result.model.graph] == [1, 1]
    assert ops(result) == {"DequantizeLinear": 1, "QuantizeLinear": 1}


@pytest.mark.parametrize(
    ("second", "left"),
    [
        ({}, 1),
        ({"s2": np.array(0.2, np.float32)}, 2),
        ({"z2": np.array(3, np.int8)}, 2),
    ],
)
def test_of_two_equal_pairs_one_remains(second, left):
    text = (
        "t (float[2,4] x) => (float[2,4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
        " r = QuantizeLinear(d, s2, z2) y = DequantizeLinear(r, s2, z2) }"
    )
    one = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    both = one | {"s2": one["s"], "z2": one["z"]} | second
    assert ops(optimized(network(text, both)))["QuantizeLinear"] == left


def test_integer_weights_are_no_arithmetic():
    text = (
        "t (float[2,4] x) => (float[2,4] y) { q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z)"
        " y = MatMul(x, d) }"
    )
    constants = {"w": (4, 4), "s": np.array(0.02, np.float32), "z": np.array(0, np.int8)}
    result = optimized(network(text, constants))
    assert ops(result)["DequantizeLinear"] == 1
    assert ops(result)["MatMul"] == 1


def test_passes_on_request_stay_close():
    text = (
        "t (float[1,4,6,6] x) => (float[1,8,6,6] y) { q = QuantizeLinear(x, s, z)"
        " d = DequantizeLinear(q, s, z) c = Conv(d, w) r = Relu(c)"
        " o = QuantizeLinear(r, s2, z) y = DequantizeLinear(o, s2, z) }"
    )
    constants = {
        "w": (8, 4, 1, 1),
        "s": np.array(0.03, np.float32),
        "s2": np.array(0.05, np.float32),
        "z": np.array(0, np.int8),
    }
    enable = ["quantize_conv_weights"]
    result = optimize(network(text, constants), OptimizeOptions(enable=enable))
    assert not result.log.rolled_back
    assert ops(result)["DequantizeLinear"] == 3
