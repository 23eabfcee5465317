"""Constants behind a DequantizeLinear, compared with ONNX Runtime, and the definition of a constant."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trtbuild.model.constants import array, is_constant
from trtbuild.model.qdq import behind_activation, dequantized, weight_behind

SCALES = st.floats(2.0**-20, 2.0**4, width=32)


def dequantizing(content, scale, zero=None, axis=None):
    """Return a network whose output is a constant behind a DequantizeLinear."""
    constants = {"content": content, "scale": scale} | ({} if zero is None else {"zero": zero})
    node = onnx.helper.make_node(
        "DequantizeLinear", list(constants), ["y"], **({} if axis is None else {"axis": axis})
    )
    graph = onnx.helper.make_graph(
        [node],
        "net",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, content.shape)],
        [onnx.numpy_helper.from_array(one, name) for name, one in constants.items()],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


def judged(proto):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {})[0]


@settings(max_examples=60)
@given(
    st.data(),
    st.sampled_from([np.int8, np.uint8]),
    st.booleans(),
    st.sampled_from([0, 1, -1, None]),
)
def test_a_dequantized_constant_is_what_onnx_runtime_makes_of_it(data, dtype, has_zero, axis):
    content = data.draw(arrays(dtype, (3, 3)))
    shape = () if axis is None else (3,)
    scale = data.draw(arrays(np.float32, shape, elements=SCALES))
    zero = data.draw(arrays(dtype, shape)) if has_zero or dtype is np.uint8 else None
    proto = dequantizing(content, scale, zero, axis)
    found = dequantized(ir.from_proto(proto).graph.outputs[0])
    np.testing.assert_array_equal(found, judged(proto))
    assert found.dtype == np.float32


def test_a_plain_constant_is_no_weight_behind_a_dequantize():
    proto = dequantizing(np.ones((2, 2), np.int8), np.float32(0.5))
    model = ir.from_proto(proto)
    scale = model.graph[0].inputs[1]
    assert weight_behind(scale) is None
    assert dequantized(scale) == np.float32(0.5)
    np.testing.assert_array_equal(weight_behind(model.graph.outputs[0]), np.full((2, 2), 0.5))


MEANINGS = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2] x, float[2] both) => (float[2] y)
<float[2] kept = {1, 2}, float[2] both = {3, 4}>
{
    c = Constant<value_floats = [5.0, 6.0]>()
    a = Add(x, kept)
    b = Add(a, both)
    r = Relu(b)
    y = Add(r, c)
}
"""


def test_initializers_and_constant_nodes_are_constant_and_what_a_caller_may_replace_is_not():
    model = ir.from_proto(onnx.parser.parse_model(MEANINGS))
    values = {v.name: v for node in model.graph for v in node.inputs}
    assert {name for name, value in values.items() if is_constant(value)} == {"kept", "c"}
    np.testing.assert_array_equal(array(values["c"]), [5, 6])
    assert array(values["both"]) is None


@pytest.mark.parametrize(("name", "expected"), [("b", "r"), ("a", "a"), ("y", "y")])
def test_only_the_activation_that_alone_reads_a_tensor_stands_for_it(name, expected):
    model = ir.from_proto(onnx.parser.parse_model(MEANINGS))
    values = {v.name: v for node in model.graph for v in node.outputs}
    assert behind_activation(values[name]).name == expected


def test_a_second_reader_keeps_a_tensor_in_front_of_its_activation():
    model = ir.from_proto(onnx.parser.parse_model(MEANINGS))
    values = {v.name: v for node in model.graph for v in node.outputs}
    model.graph.append(ir.node("Neg", [values["b"]]))
    assert behind_activation(values["b"]) is values["b"]
