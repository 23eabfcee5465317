"""Rounded weights: they stay on their grid, and bring the outputs of layer and network nearer to float."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.trtbuild.verification.small_network import calibrated, images, run
from trtbuild.plan import WeightPoint
from trtbuild.quantization import quantize_weight, weight_scales
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.candidate import Candidate
from trtbuild.search.rounding import round_weights, with_weights
from trtbuild.search.steps import Material, round_anew

LAYERS = {
    "pointwise": ("Conv", (5, 4, 1, 1), {}),
    "pads and strides": ("Conv", (5, 4, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "dilated": ("Conv", (5, 4, 3, 2), {"dilations": [2, 3], "pads": [2, 0, 0, 1]}),
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2}),
    "depthwise": ("Conv", (4, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
    "matmul": ("MatMul", (9, 7), {}),
    "gemm": ("Gemm", (9, 7), {}),
    "gemm turned": ("Gemm", (7, 9), {"transB": 1}),
}


def network(op_type, shape, attributes) -> tuple[ir.Model, np.ndarray, WeightPoint]:
    """One layer with strongly correlated inputs, so that errors can cancel."""
    rng = np.random.default_rng(5)
    size = (6, 4, 9, 8) if op_type == "Conv" else (80, 9)
    x = rng.normal(size=size) + 2 * rng.normal(size=(*size[:1], *[1] * (len(size) - 1)))
    weight = rng.normal(size=shape).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op_type, ["x", "w"], ["y"], name="layer", **attributes)],
        "layer",
        [onnx.helper.make_tensor_value_info("x", 1, size)],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    axis = {"Conv": 0, "MatMul": 1}.get(op_type, 0 if "transB" in attributes else 1)
    return model, x.astype(np.float32), WeightPoint("layer", 1, axis)


def nearest(weight, axis):
    scales = weight_scales(weight, axis, "w")
    shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
    return quantize_weight(weight, scales, axis) * scales.reshape(shape)


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_is_nearer_and_the_weight_stays_on_its_grid(name) -> None:
    model, x, point = network(*LAYERS[name])
    weight = model.graph.initializers["w"].const_value.numpy()
    found = round_weights(model, [point], [{"x": x}])["layer"]
    assert found.shape == weight.shape
    # quantized once more, it is the same to the last bits of float32
    np.testing.assert_allclose(nearest(found, point.axis), found, rtol=1e-6)
    np.testing.assert_allclose(
        weight_scales(found, point.axis, "w"), weight_scales(weight, point.axis, "w"), rtol=1e-6
    )

    def error(other: np.ndarray) -> float:
        networks = (model, with_weights(model, {"layer": other}))
        outputs = [open_session(one, Execution.REFERENCE).run({"x": x})["y"] for one in networks]
        return float(((outputs[0].astype(np.float64) - outputs[1]) ** 2).sum())

    assert error(found) < 0.8 * error(nearest(weight, point.axis))


def test_zeros_stay_and_shared_weights_are_left_out() -> None:
    model, x, point = network("Conv", (5, 4, 3, 3), {})
    weight = model.graph.initializers["w"]
    pruned = weight.const_value.numpy().copy()
    pruned[:, ::2] = 0
    weight.const_value = ir.tensor(pruned, name="w")
    found = round_weights(model, [point], [{"x": x}])["layer"]
    assert not found[:, ::2].any()
    other = ir.node("Conv", list(model.graph.node(0).inputs), name="other")
    other.outputs[0].name = "z"
    model.graph.append(other)
    assert round_weights(model, [point], [{"x": x}]) == {}


def material(feeds) -> Material:
    return Material(feeds=[feeds], calibrate=lambda artifact: artifact)


def test_the_step_brings_a_network_nearer_and_float_groups_keep_their_weights() -> None:
    artifact = calibrated()
    before = Candidate(artifact)
    (_, anew), (_, corrected) = round_anew(lambda: before, material({"image": images(1)}))
    expected = run(artifact.model, images())["logits"].astype(np.float64)

    def error(candidate: Candidate) -> float:
        return float(((run(candidate.network(), images())["logits"] - expected) ** 2).sum())

    assert min(error(anew), error(corrected)) < error(before)
    names = {group.name for group in before.groups()}
    np.testing.assert_array_equal(
        run(anew.with_float(names).network(), images())["logits"],
        run(artifact.model, images())["logits"],
    )
    assert set(anew.rounded) <= names


def test_the_rows_drawn_for_a_layer_depend_on_no_other_layer() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5000, 9)) + 2 * rng.normal(size=(5000, 1))  # more rows than are drawn
    weights = {name: rng.normal(size=(9, 7)).astype(np.float32) for name in "ab"}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", name], [f"y{name}"], name=name) for name in "ab"],
        "layers",
        [onnx.helper.make_tensor_value_info("x", 1, [None, 9])],
        [onnx.helper.make_tensor_value_info(f"y{name}", 1, None) for name in "ab"],
        [onnx.numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    feeds = [{"x": x.astype(np.float32)}]
    points = [WeightPoint(name, 1, 1) for name in "ab"]
    both = round_weights(model, points, feeds)
    alone = round_weights(model, points[1:], feeds)
    np.testing.assert_array_equal(both["b"], alone["b"])
