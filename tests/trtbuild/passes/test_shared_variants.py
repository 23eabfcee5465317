"""The shared cases again: inside a branch of an If, in half floats, and at other opsets."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.trtbuild.passes.test_shared_cases import CASES, FOLDER, judge
from trtbuild.passes import OptimizeOptions, optimize

pytestmark = pytest.mark.nightly

UNCONVERTIBLE = {
    "half": {
        "TransformOnnxPad.p1.op10",  # ONNX's converter makes a float32 value for a half float Pad
        "LSTMWeightInt8.p1.op17",  # no scales of half floats before opset 19
        "RemoveUnusefulOp.n2.op17",  # the rounding Cast becomes the identity
        "eliminate_noop.n4.op21",  # 1e-9 becomes zero
    },
    "opset": {"FuseLayerNorm.p1.op17"},  # LayerNormalization came with opset 17
}


def in_half_floats(model):
    def convert(tensor):
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                content = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(content, tensor.name))

    def walk(graph):
        for tensor in graph.initializer:
            convert(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        for node in graph.node:
            for attribute in node.attribute:
                convert(attribute.t)
                walk(attribute.g)
                if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16

    made = copy.deepcopy(model)
    walk(made.graph)
    return made


def at_opset(model, version):
    made = copy.deepcopy(model)
    for entry in made.opset_import:
        if entry.domain == "":
            entry.version = version
    return made


def in_a_branch(model):
    """Put the graph into both branches of an If; None if its inputs or outputs do not allow that."""
    graph = model.graph
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.output}
    if any(value.name in names for value in graph.input):
        return None
    branches = {}
    for side in ("then_branch", "else_branch"):
        branch = helper.make_graph([], side, [], [])
        branch.node.extend(graph.node)
        branch.output.extend(graph.output)
        branch.initializer.extend(graph.initializer)
        branches[side] = branch
    outputs = copy.deepcopy(list(graph.output))
    for value in outputs:
        value.name += "_of_if"
    node = helper.make_node("If", ["condition"], [value.name for value in outputs], **branches)
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    outer = helper.make_graph([node], "outer", [condition, *graph.input], outputs)
    return helper.make_model(outer, opset_imports=model.opset_import, ir_version=model.ir_version)


def judged(case, model, tmp_path, **changes):
    """Optimise a variant of a case and let the collection's own judge look at it."""
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model, source)
    try:
        onnx.checker.check_model(model, full_check=True)
        judge().session(str(source))
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no such network
        pytest.skip(f"no valid network of this kind: {str(error)[:80]}")
    enable = case["passes"] if case.get("opt_in") else []
    result = optimize(ir.load(source), OptimizeOptions(enable=enable, check=False))
    ir.save(result.model, target)
    return judge().check({**case, **changes}, source, target)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_in_half_floats(case, tmp_path):
    if case["id"] in UNCONVERTIBLE["half"]:
        pytest.skip("means something else in half floats")
    inputs = {
        name: {**spec, "dtype": spec["dtype"].replace("float32", "float16")}
        for name, spec in case["inputs"].items()
    }
    # 2^-11 per rounding, over the few operators of a case
    compare = case.get("compare", {}) if case.get("compare", {}).get("mode") else {}
    compare = compare or {**case.get("compare", {}), "rtol": 0.02, "atol": 0.02}
    model = in_half_floats(onnx.load(FOLDER / case["model"]))
    status, detail = judged(case, model, tmp_path, inputs=inputs, compare=compare)
    assert status in ("done", "ok"), detail


@pytest.mark.parametrize("version", [13, 15, 18, 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_at_other_opsets(case, version, tmp_path):
    if version < 17 and case["id"] in UNCONVERTIBLE["opset"]:
        pytest.skip("the operator came with opset 17")
    model = at_opset(onnx.load(FOLDER / case["model"]), version)
    status, detail = judged(case, model, tmp_path)
    assert status in ("done", "ok"), detail


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_in_a_branch(case, tmp_path):
    """Compares values only: each operator occurs twice, so the bounds of the case do not apply."""
    model = in_a_branch(onnx.load(FOLDER / case["model"]))
    if model is None:
        pytest.skip("an input is an initialiser or an output")
    condition = {"shape": [], "dtype": "bool", "gen": "choice", "values": [True, False]}
    inputs = {**case["inputs"], "condition": condition}
    status, detail = judged(case, model, tmp_path, inputs=inputs, expect={})
    assert status in ("done", "ok"), detail
