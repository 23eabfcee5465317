"""The integers and scales that a plan writes into a layer, against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.model.constants import array
from trtbuild.plan import Consumer, Plan, QuantParams, WeightPoint
from trtbuild.quantization.insert import insert

SCALE_OF_DATA = np.float32(0.02)


def layer(op_type: str, weight: np.ndarray, bias: np.ndarray) -> ir.Model:
    given = {"Conv": "float[N, 3, 5, 5]", "Gemm": "float[N, 6]"}[op_type]
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> n ({given} x) => (float[M] y) {{'
        f" y = {op_type} (x, w, b) }}"
    )
    proto.graph.output[0].ClearField("type")
    for name, content in (("w", weight), ("b", bias)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    proto.graph.node[0].name = "layer"
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def written(node: ir.Node, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The integers and scales behind an input of a layer."""
    dequantize = node.inputs[index].producer()
    assert dequantize.op_type == "DequantizeLinear"
    return array(dequantize.inputs[0]), array(dequantize.inputs[1])


@pytest.mark.parametrize(
    ("op_type", "shape", "axis"),
    [("Conv", (4, 3, 2, 2), 0), ("Conv", (4, 3, 2, 2), None), ("Gemm", (6, 4), 1)],
)
def test_weights_and_biases_are_integers_and_a_channel_of_zeros_keeps_its_bias(
    op_type: str, shape: tuple[int, ...], axis: int | None
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape).astype(np.float32)
    np.moveaxis(weight, axis or 0, 0)[2] = 0.0
    bias = rng.normal(size=4).astype(np.float32)
    plan = Plan(
        {"x": frozenset({Consumer("layer", 0)})},
        (WeightPoint("layer", 1, axis),),
        {"x": QuantParams(SCALE_OF_DATA, 128, ir.DataType.UINT8)},
        frozenset({"layer"}),
    )
    node = next(
        one for one in insert(layer(op_type, weight, bias), plan).graph if one.name == "layer"
    )
    steps, scales = written(node, 1)
    amax = np.abs(weight if axis is None else np.moveaxis(weight, axis, 0).reshape(4, -1)).max(
        axis=None if axis is None else 1
    )
    others = amax > 0
    np.testing.assert_allclose(scales[others], (amax / np.float32(127))[others], rtol=1e-6)
    whole = scales.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])
    assert steps.dtype == np.int8
    np.testing.assert_allclose(steps * whole, weight, atol=0.51 * float(amax.max()) / 127)

    integers, fine = written(node, 2)
    assert integers.dtype == np.int32
    np.testing.assert_allclose(fine, np.broadcast_to(SCALE_OF_DATA * scales, 4), rtol=1e-6)
    exact = integers * fine.astype(np.float64)
    assert np.all(np.abs(exact - bias) <= 0.51 * fine)
    if axis is not None:
        assert exact[2] == pytest.approx(float(bias[2]), rel=1e-6)
