"""Inferred types and dims against what ONNX Runtime computes, on random networks."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trtbuild.passes.random_graphs import BATCH, grow
from trtbuild.model.edits import tapped
from trtbuild.model.inference import infer_model, infer_node
from trtbuild.model.shapes import dims
from trtbuild.model.writing import model_bytes, without_weights


@st.composite
def networks(draw):
    proto = grow(lambda options: draw(st.sampled_from(list(options))), draw(st.integers(0, 2**16)))
    return ir.from_proto(proto)


def run(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model_bytes(model), options, ["CPUExecutionProvider"])
    feeds = {}
    for info in session.get_inputs():
        shape = [BATCH if isinstance(dim, str) else dim for dim in info.shape]
        kinds = {"tensor(bool)": np.bool_, "tensor(float16)": np.float16}
        feeds[info.name] = np.ones(shape, kinds.get(info.type, np.float32))
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds)))


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(networks())
def test_what_is_inferred_is_what_comes_out(model):
    for node in model.graph:
        for output in node.outputs:
            output.shape = ir.Shape([99])  # an outdated shape
    infer_model(model)
    values = {value.name: value for node in model.graph for value in node.outputs if value.name}
    for name, found in run(tapped(model, list(values))).items():
        value = values[name]
        assert value.dtype.numpy() == found.dtype
        known = dims(value)
        if known is not None:
            assert len(known) == found.ndim
            for dim, size in zip(known, found.shape):
                assert not isinstance(dim, int) or dim == size


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(networks())
def test_weights_taken_out_are_inputs_of_the_protobuf_alone(model):
    before = model_bytes(model)
    detached = without_weights(model)
    assert model_bytes(model) == before
    inside = {tensor.name for tensor in detached.proto.graph.initializer}
    assert not inside & set(detached.weights)
    assert {value.name for value in detached.proto.graph.input} >= set(detached.weights)
    assert all(tensor.nbytes > 1024 for tensor in detached.weights.values())
    onnx.checker.check_model(detached.proto)


def test_one_new_node_gets_its_type_and_dims():
    x = ir.val("x", ir.DataType.FLOAT16, ["n", 3, 4])
    node = ir.node("Reshape", [x, shape_of([0, 12])])
    node.outputs[0].name = "y"
    infer_node(node, {"": 17})
    assert node.outputs[0].dtype == ir.DataType.FLOAT16
    assert dims(node.outputs[0]) == ("n", 12)


@pytest.mark.parametrize("opset", [18, 21])
def test_what_stands_behind_a_group_normalization_is_known(opset):
    per = 2 if opset == 18 else 4  # scales per group; per channel since opset 21
    proto = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {opset}]>
        g (float[n, 4, 3, 5] x, float[{per}] s, bool c) => (y) {{
            a = GroupNormalization <num_groups = 2> (x, s, s)
            b = MaxPool <kernel_shape = [3, 3]> (a)
            y = If (c) <then_branch = t () => (float[n, 4, 1, 3] p) {{
                p = GroupNormalization <num_groups = 2> (b, s, s)
            }}, else_branch = e () => (float[n, 4, 1, 3] q) {{ q = Identity (b) }}>
        }}""")
    model = ir.from_proto(proto)
    infer_model(model)
    values = {value.name: value for node in model.graph for value in node.outputs}
    assert dims(values["a"]) == ("n", 4, 3, 5)
    assert dims(values["b"]) == ("n", 4, 1, 3)
    assert values["y"].dtype == ir.DataType.FLOAT
    assert [node.op_type for node in model.graph] == ["GroupNormalization", "MaxPool", "If"]

    one = ir.node("GroupNormalization", list(model.graph.inputs)[:1] * 3, {"num_groups": 2})
    infer_node(one, {"": opset})
    assert (one.outputs[0].dtype, dims(one.outputs[0])) == (ir.DataType.FLOAT, ("n", 4, 3, 5))


def shape_of(content):
    tensor = ir.tensor(np.array(content, np.int64), name="s")
    return ir.tape.Tape(ir.Graph([], [], nodes=[])).initializer(tensor)
