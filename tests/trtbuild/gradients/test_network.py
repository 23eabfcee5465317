"""The gradients of a backward network, those it omits, and the reasons."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.errors import ModelError
from trtbuild.gradients import backward_network, differentiable_outputs
from trtbuild.model.opset import opset_of
from trtbuild.runtime.onnxruntime import Execution, open_session


def parsed(body: str, opset: int = 17) -> ir.Model:
    header = f'<ir_version: 8, opset_import: ["": {opset}]>\n'
    return ir.from_proto(onnx.parser.parse_model(header + body))


def answers(backward, feeds):
    return open_session(backward.model, Execution.REFERENCE, threads=1).run(feeds)


def test_what_arrives_on_several_ways_is_added_up():
    model = parsed(
        """n (float[N,2] x) => (float[N,2] out, float[N,2] twice) {
            a = Relu (x)
            b = Mul (a, a)
            out = Add (b, a)
            twice = Add (a, a)
        }"""
    )
    backward = backward_network(model, ["a", "b"])
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]], np.float32)
    v, w = np.full((3, 2), 2.0, np.float32), np.full((3, 2), 0.5, np.float32)
    found = answers(backward, {"x": x, backward.seeds["out"]: v, backward.seeds["twice"]: w})
    a = np.maximum(x, 0)
    assert np.array_equal(found["a"], a)
    assert np.array_equal(found["b"], a * a)
    assert np.array_equal(found[backward.gradients["b"]], v)
    assert np.array_equal(found[backward.gradients["a"]], 2 * a * v + v + 2 * w)
    assert not backward.unreached
    assert not backward.incomplete


def test_only_what_is_asked_for_is_computed():
    model = parsed(
        """n (float[2] x) => (float[2] out) {
            a = Exp (x)
            b = Sin (a)
            c = Cos (b)
            out = Sigmoid (c)
        }"""
    )
    backward = backward_network(model, ["c"])
    assert not {"Sin", "Cos"} & {
        node.op_type for node in backward.model.graph if node.name.startswith("backward")
    }
    assert [value.name for value in backward.model.graph.outputs] == [
        "c",
        *backward.gradients.values(),
    ]
    assert len(model.graph) == 4


def test_an_operator_without_a_rule_is_named():
    model = parsed(
        """n (float[4,1,3] x, float[1,20,3] w, float[1,20,5] r) => (float[1,1,5] out) {
            a = Relu (x)
            b = Sigmoid (x)
            y, h, out_cell = LSTM <hidden_size = 5> (a, w, r)
            s = ReduceMean <keepdims = 1> (b)
            out = Add (h, s)
        }"""
    )
    assert differentiable_outputs(model) == ("a", "out")
    backward = backward_network(model, ["a", "b", "x"], ["out"])
    assert set(backward.gradients) == {"b", "x"}
    assert "LSTM" in backward.unreached["a"]
    assert "LSTM" in backward.incomplete["x"]
    assert "b" not in backward.incomplete


def test_a_choice_is_no_gradient_but_a_comparison_is_zero():
    model = parsed(
        """n (float[2,5] x) => (float[2,5] out) {
            a = Relu (x)
            i = ArgMax <axis = 1, keepdims = 1> (a)
            chosen = GatherElements <axis = 1> (x, i)
            b = Sigmoid (x)
            high = Greater (b, chosen)
            out = Where (high, x, chosen)
        }"""
    )
    assert differentiable_outputs(model) == ("a", "out")
    backward = backward_network(model, ["a", "b", "chosen"], ["out"])
    assert "ArgMax" in backward.unreached["a"]
    assert backward.unreached["b"] == "no output depends on it"
    assert set(backward.gradients) == {"chosen"}


def test_tensors_without_gradients_say_why():
    model = parsed(
        """n (float[2,5] x, bool c) => (float[2,5] out) {
            shape = Shape (x)
            unread = Exp (x)
            b = If (c) <then_branch = t () => (float[2,5] p) { p = Neg (x) },
                        else_branch = e () => (float[2,5] q) { q = Abs (x) }>
            out = Add (b, x)
        }"""
    )
    backward = backward_network(model, ["shape", "unread", "x", "b"])
    assert backward.unreached == {
        "shape": "it is not floating-point",
        "unread": "no output depends on it",
    }
    assert "If" in backward.incomplete["x"]
    with pytest.raises(ModelError, match="no tensor 'p'"):
        backward_network(model, ["p"])
    with pytest.raises(ModelError, match="'shape' is not floating-point"):
        backward_network(model, ["x"], ["shape"])


def test_behind_a_tensor_of_unknown_type_nothing_is_claimed():
    model = parsed(
        """n (float[2,5] x) => (float[2,2] out) {
            s = Exp (x)
            a = of.nobody.Strange (s)
            k = Constant <value = int64[1] {2}> ()
            out, places = TopK (a, k)
        }"""
    )
    model.opset_imports["of.nobody"] = 1
    backward = backward_network(model, ["s"])
    assert "s" in {**backward.incomplete, **backward.unreached}


def test_outputs_behind_a_selection_give_way_to_what_it_reads():
    model = parsed(
        """n (float[1,9,4] x, float[1,1,9] raw, int64 k, float t) => (int64[S,3] found, float[1,9,4] half) {
            boxes = Exp (x)
            scores = Sigmoid (raw)
            found = NonMaxSuppression (boxes, scores, k, t, t)
            two = Add (boxes, boxes)
            half = Sigmoid (two)
        }"""
    )
    assert differentiable_outputs(model) == ("boxes", "scores", "half")
    backward = backward_network(model, ["boxes", "scores"])
    assert set(backward.seeds) == {"boxes", "scores", "half"}
    assert not backward.unreached


def test_an_inner_tensor_may_be_the_output():
    model = parsed("n (float[3] x) => (int64[1] i) { a = Exp (x)  b = Sin (a)  i = ArgMax (b) }")
    backward = backward_network(model, ["x"], ["a"])
    x, v = np.array([0.1, 0.2, 0.3], np.float32), np.array([1, 2, 3], np.float32)
    found = answers(backward, {"x": x, backward.seeds["a"]: v})
    np.testing.assert_allclose(found[backward.gradients["x"]], v * np.exp(x), rtol=1e-6)


def test_an_old_opset_is_raised_where_values_add_up_by_index():
    body = """n (float[1,1,4,4] x) => (float[1,1,2,2] out) {
        a = Relu (x)
        out = MaxPool <kernel_shape = [3, 3], strides = [1, 1]> (a)
    }"""
    model = parsed(body, opset=13)
    backward = backward_network(model, ["a"])
    assert opset_of(model) == 13
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) % 10
    found = answers(backward, {"x": x, backward.seeds["out"]: np.ones((1, 1, 2, 2), np.float32)})
    expected = np.zeros(16)
    expected[[9, 9, 9, 7]] = 0
    expected[9] = 4  # the nine lies in all four windows
    assert np.array_equal(found[backward.gradients["a"]].ravel(), expected)
    with pytest.raises(ModelError, match="opset 13 or newer"):
        backward_network(parsed(body, opset=12), ["a"])


def test_weights_have_gradients_too():
    model = parsed(
        """n (float[N,3] x) => (float[N,2] out) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
            out = MatMul (x, w)
        }"""
    )
    backward = backward_network(model, ["w", "x"])
    assert {value.name for value in backward.model.graph.outputs} == set(
        backward.gradients.values()
    )
    x, v = np.ones((4, 3), np.float32), np.full((4, 2), 2.0, np.float32)
    found = answers(backward, {"x": x, backward.seeds["out"]: v})
    assert np.array_equal(found[backward.gradients["w"]], x.T @ v)
