"""Changes to a network in place; ONNX Runtime checks that it computes the same."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from trtbuild.model.edits import (
    GraphWriter,
    add_initializer,
    remove_unread,
    set_constant,
    take_over_output,
    tapped,
    tapped_here,
)
from trtbuild.model.inference import infer_model
from trtbuild.model.writing import model_bytes

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 2] x) => (float[n, 2] y, float[n, 2] z)
<float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, -1}, float[2] nobody = {0, 0}>
{
    p = MatMul(x, w)
    q = MatMul(p, w)
    y = Add(q, b)
    lost = Relu(q)
    z = Neg(p)
}
"""
X = np.array([[1, -2], [3, 0.5]], np.float32)


@pytest.fixture
def model() -> ir.Model:
    loaded = ir.from_proto(onnx.parser.parse_model(TEXT))
    for node in loaded.graph:
        node.name = node.outputs[0].name
    infer_model(loaded)
    return loaded


def node(model: ir.Model, name: str) -> ir.Node:
    return next(one for one in model.graph if one.name == name)


def answers(model: ir.Model, x: np.ndarray = X) -> dict[str, np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"x": x})))


def test_an_added_constant_is_read_as_it_was_given(model):
    content = np.array([5, 7], np.float32)
    node(model, "y").replace_input_with(1, add_initializer(model.graph, "c", content))
    w = np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(answers(model)["y"], X @ w @ w + content)


def test_an_added_tensor_is_shared_and_not_copied(model):
    tensor = ir.tensor(np.ones((3, 2), np.float32))
    value = add_initializer(model.graph, "c", tensor)
    assert value.const_value is tensor
    assert (value.dtype, value.shape) == (ir.DataType.FLOAT, ir.Shape([3, 2]))


def test_a_layer_gets_a_weight_of_its_own_and_the_other_keeps_the_shared_one(model):
    before = answers(model)["z"]
    set_constant(model, node(model, "q"), 1, np.eye(2), "own")
    found = answers(model)
    np.testing.assert_array_equal(found["z"], before)
    np.testing.assert_array_equal(found["y"], -before + np.array([1, -1]))
    assert node(model, "q").inputs[1].dtype == ir.DataType.FLOAT


def test_a_constant_that_only_this_layer_read_goes(model):
    set_constant(model, node(model, "y"), 1, np.zeros(2), "own")
    assert "b" not in model.graph.initializers


def test_new_names_are_none_that_a_node_output_has(model):
    node(model, "p").outputs[0].name = "q_1_own"
    set_constant(model, node(model, "q"), 1, np.eye(2), "own")
    assert node(model, "q").inputs[1].name == "q_1_own_2"
    answers(model)


def test_names_of_constants_that_are_gone_are_given_again_whoever_writes(model):
    other, writer = model.clone(), GraphWriter(model)
    names = []
    for factor in range(1, 6):
        writer.set_constant(node(model, "q"), 1, factor * np.eye(2), "own")
        set_constant(other, node(other, "q"), 1, factor * np.eye(2), "own")
        names.append(node(model, "q").inputs[1].name)
        assert list(model.graph.initializers) == list(other.graph.initializers)
    assert names == ["q_1_own", "q_1_own_2"] * 2 + ["q_1_own"]


def test_an_output_keeps_its_name_and_place_when_another_tensor_takes_over(model):
    before = answers(model)
    p, z = node(model, "p").outputs[0], node(model, "z").outputs[0]
    model.graph.append(ir.node("Relu", [z], name="after"))
    take_over_output(z, p, aside="z_aside")
    after = answers(model)
    assert list(after) == ["y", "z"]
    np.testing.assert_array_equal(after["z"], -before["z"])
    np.testing.assert_array_equal(after["y"], before["y"])
    assert node(model, "after").inputs[0] is z
    assert z.name == "z_aside"


def test_what_nothing_reads_goes_and_the_interface_stays(model):
    before = answers(model)
    remove_unread(model)
    assert [one.name for one in model.graph] == ["p", "q", "y", "z"]
    assert sorted(model.graph.initializers) == ["b", "w"]
    after = answers(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_stays_keeps_its_empty_operands(model):
    """They are part of the file, and of a digest."""
    clip = ir.node("Clip", [node(model, "p").outputs[0], None, None], name="clip")
    clip.outputs[0].name = "clipped"
    model.graph.append(clip)
    model.graph.outputs.append(clip.outputs[0])
    remove_unread(model)
    assert len(clip.inputs) == 3


def test_a_removed_branch_takes_along_what_only_it_read(model):
    text = TEXT.replace(
        "lost = Relu(q)",
        """yes = Constant<value_int = 1>()
        cond = Cast<to = 9>(yes)
        only = Neg(q)
        lost = If(cond)<then_branch = g () => (float[n, 2] t) { t = Relu(only) },
                        else_branch = h () => (float[n, 2] e) { e = Abs(only) }>""",
    )
    loaded = ir.from_proto(onnx.parser.parse_model(text))
    remove_unread(loaded)
    assert [one.op_type for one in loaded.graph] == ["MatMul", "MatMul", "Add", "Neg"]
    assert loaded.graph[-1].outputs[0].name == "z"


def test_inner_tensors_become_the_outputs_of_a_copy(model):
    copy = tapped(model, ["q", "p"])
    found = answers(copy)
    w = np.array([[1, 2], [3, 4]], np.float32)
    assert list(found) == ["p", "q"]
    np.testing.assert_array_equal(found["q"], X @ w @ w)
    assert [one.name for one in model.graph.outputs] == ["y", "z"]


def test_outputs_stay_where_no_computed_tensor_is_asked_for(model):
    assert [one.name for one in tapped(model, ["x"]).graph.outputs] == ["y", "z"]


def test_a_written_pair_rounds_to_its_scale(model):
    writer = GraphWriter(model)
    y = node(model, "y").outputs[0]
    scale = writer.constant("y_scale", np.float32(0.5))
    zero = writer.constant("y_zero", np.int8(0))
    quantize = writer.quantize(y, [scale, zero], "y_quantized")
    dequantize = writer.dequantize(quantize.outputs[0], [scale, zero], "y_dq", y, None)
    model.graph.extend([quantize, dequantize])
    x = np.array([[0.3, 0.3], [-3, 9]], np.float32)
    expected = np.clip(np.rint(answers(model, x)["y"] * 2), -128, 127) / 2
    take_over_output(y, dequantize.outputs[0], aside=writer.fresh("y_float"))
    np.testing.assert_array_equal(answers(model, x)["y"], expected)


def test_a_network_is_tapped_for_a_block_as_a_copy_is_for_good(model):
    before = model_bytes(model)
    copy = model_bytes(tapped(model, ["p", "q"]))
    with contextlib.suppress(KeyError), tapped_here(model, ["p", "q"]):
        assert model_bytes(model) == copy != before
        raise KeyError
    assert model_bytes(model) == before
