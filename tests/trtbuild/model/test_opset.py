"""Opsets up and down; ONNX Runtime checks that the network computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from trtbuild.errors import ModelError
from trtbuild.model.inference import infer_model
from trtbuild.model.opset import lower_to_17, opset_of, raise_opset, raise_proto_opset

OLD = """
<ir_version: 3, opset_import: ["" : 10]>
net (float[1, 1, 3, 3] x, float[4] scales) => (float[1, 1, n, m] y)
<float[4] scales = {1, 1, 2, 2}>
{ y = Resize<mode = "linear">(x, scales) }
"""
NEW = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[2, 6] x) => (float[2, 3] y, float[2, 3] z)
<int64[1] axes = {1}>
{
    m = ReduceMax<keepdims = 1>(x, axes)
    d = Sub(x, m)
    y, z = Split<axis = 1, num_outputs = 2>(d)
}
"""


def answers(proto, x):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def large(text=OLD):
    """Append an addition of 1,440 weights, more than the converter is given, to the network."""
    proto = onnx.parser.parse_model(text)
    proto.graph.node[0].output[0] = "inner"
    proto.graph.node.add(op_type="Add", input=["inner", "w"], output=["y"])
    weight = np.random.default_rng(0).normal(size=(1, 1, 6, 6)).astype(np.float32)
    weight = np.tile(weight, (40, 1, 1, 1))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, weight.shape)
    )
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 40
    return proto


@pytest.mark.parametrize("target", [11, 13, 19])
def test_a_resize_of_old_rules_keeps_its_pixels_by_both_ways_up(tmp_path, target):
    proto = large()
    x = np.random.default_rng(1).normal(size=(1, 1, 3, 3)).astype(np.float32)
    expected = answers(proto, x)[0]

    read = onnx.ModelProto()
    read.CopyFrom(proto)
    read = raise_proto_opset(read, target, tmp_path / "net.onnx")
    np.testing.assert_allclose(answers(read, x)[0], expected, rtol=1e-6)
    assert [value.name for value in read.graph.input] == ["x"]

    model = ir.from_proto(proto)
    model.graph.inputs[1:] = []
    model.ir_version = 4
    weight = model.graph.initializers["w"].const_value
    raise_opset(model, target)
    np.testing.assert_allclose(answers(ir.to_proto(model), x)[0], expected, rtol=1e-6)
    assert model.graph.initializers["w"].const_value is weight
    for converted in (read, ir.to_proto(model)):
        assert converted.ir_version == 8
    assert not read.graph.value_info


def test_what_the_converter_does_not_know_is_said_and_the_network_stays(tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 12, "made.up" : 1]> n (float[2] x) => (float[2] y) { y = %s }'
    model = ir.from_proto(onnx.parser.parse_model(text % "Upsample<scales = [1.0]>(x)"))
    with pytest.raises(ModelError, match="Upsample"):
        raise_opset(model, 13)
    assert opset_of(model) == 12
    assert [node.op_type for node in model.graph] == ["Upsample"]
    with pytest.raises(ModelError, match=r"'net\.onnx' has opset 12, INT8 needs 13 here"):
        raise_proto_opset(ir.to_proto(model), 13, tmp_path.relative_to(tmp_path) / "net.onnx")


def test_opset_17_computes_what_opset_18_did():
    proto = onnx.parser.parse_model(NEW)
    x = np.random.default_rng(2).normal(size=(2, 6)).astype(np.float32)
    model = ir.from_proto(proto)
    infer_model(model)
    lower_to_17(model)
    assert opset_of(model) == 17
    lowered = ir.to_proto(model)
    onnx.checker.check_model(lowered, full_check=True)
    for expected, found in zip(answers(proto, x), answers(lowered, x)):
        np.testing.assert_array_equal(found, expected)


def test_a_split_into_uneven_parts_is_refused_by_opset_17():
    text = NEW.replace("[2, 6]", "[2, 5]").replace(
        "(float[2, 3] y, float[2, 3] z)", "(float[2, 3] y, float[2, 2] z)"
    )
    with pytest.raises(ModelError, match="splits into parts"):
        lower_to_17(ir.from_proto(onnx.parser.parse_model(text)))


def test_a_scan_with_a_batch_axis_is_refused():
    """Opset 9 removed the axis, and the converter leaves the node unchanged."""
    text = (
        "b (float[2] s, float[2] x) => (float[2] t, float[2] y) { t = Add(s, x) y = Identity(t) }"
    )
    body = onnx.parser.parse_graph(text)
    node = onnx.helper.make_node(
        "Scan", ["", "s", "x"], ["t", "y"], num_scan_inputs=1, body=body, name="sum"
    )
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [info("s", 1, [1, 2]), info("x", 1, [1, 3, 2])],
        [info("t", 1, [1, 2]), info("y", 1, [1, 3, 2])],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 8)], ir_version=8
    )
    with pytest.raises(ModelError, match="Scan 'sum' has a batch axis"):
        raise_proto_opset(proto, 13, Path("net.onnx"))
