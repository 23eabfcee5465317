"""Limits that the passes and their driver promise, from both sides."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trtbuild.passes.networks import network, ops, optimized
from trtbuild.passes import OptimizeOptions, Pass, optimize

SPREAD = (
    "m = ReduceMean<axes=[1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes=[1]>(q)"
    " e = Add(v, k) r = Sqrt(e) y = Div(d, r)"
)
"""Layer normalisation as exporters spell it out."""


@pytest.mark.parametrize(("count", "folded"), [(262_147, True), (262_148, False)])
def test_a_folded_constant_is_at_most_a_mebibyte_larger_than_what_it_is_made_of(count, folded):
    # computed from 4 bytes and a shape of 8 bytes: 4 * 262,147 = 12 + 2^20
    text = f"t (float[{count}] x) => (float[{count}] y) {{ e = Expand(k, s) y = Pow(x, e) }}"
    constants = {"k": np.array(3, np.float32), "s": np.array([count])}
    result = optimize(
        network(text, constants), OptimizeOptions(check=False, only=["fold_constants"])
    )
    assert ("Expand" not in ops(result)) is folded


@pytest.mark.parametrize(
    ("op", "divisor", "folded"),
    [("Div", 1, False), ("Div", 0, False), ("Mod", 0, False), ("Div", 3, True)],
)
def test_a_division_that_may_end_the_process_is_left_to_whoever_runs_it(op, divisor, folded):
    text = f"t (int32[4] x) => (int32[4] y) {{ d = Neg(n) q = {op}(least, d) y = Add(x, q) }}"
    constants = {"n": np.array([divisor], np.int32), "least": np.array([-(2**31)], np.int32)}
    result = optimize(
        network(text, constants), OptimizeOptions(check=False, only=["fold_constants"])
    )
    assert (op not in ops(result)) is folded
    assert "Neg" not in ops(result)


@pytest.mark.parametrize(("end", "removed"), [(2**31 - 1, True), (2**31 - 2, False)])
def test_what_counts_as_the_end_of_a_symbolic_dim(end, removed):
    text = "t (float[n,4] x) => (float[m,4] y) { s = Slice(x, a, b) y = Relu(s) }"
    constants = {"a": np.array([0, 0]), "b": np.array([end, 4])}
    result = optimize(network(text, constants), OptimizeOptions(check=False))
    assert ("Slice" not in ops(result)) is removed


@pytest.mark.parametrize(("opset", "fused"), [(16, False), (17, True)])
def test_layer_normalization_came_with_opset_17(opset, fused):
    text = f"t (float[2,8] x) => (float[2,8] y) {{ {SPREAD} }}"
    result = optimized(network(text, {"k": np.array(1e-5, np.float32)}, opset=opset))
    assert ("LayerNormalization" in ops(result)) is fused


@pytest.mark.parametrize(("dtype", "cancelled"), [(np.int8, True), (np.int16, False)])
def test_wide_integers_may_round_when_they_are_quantised_again(dtype, cancelled):
    name = np.dtype(dtype).name
    text = (
        f"t ({name}[4] x) => ({name}[4] y)"
        " { d = DequantizeLinear(x, s, z) q = QuantizeLinear(d, s, z) y = Identity(q) }"
    )
    constants = {"s": np.array(0.1, np.float32), "z": np.array(0, dtype)}
    model = network(text, constants, opset=21)
    result = optimize(model, OptimizeOptions(check=False, only=["cancel_dequantize_quantize"]))
    assert ("QuantizeLinear" not in ops(result)) is cancelled


def int8_weights(weights, opset=13, dtype=np.float32):
    """The network with int8 weights in its convolution, and the declined matches."""
    kind = "float16" if dtype == np.float16 else "float"
    text = (
        f"t ({kind}[1,2,4,4] x) => ({kind}[1,3,4,4] y) {{ q = QuantizeLinear(x, s, z)"
        " d = DequantizeLinear(q, s, z) c = Conv(d, w) o = QuantizeLinear(c, s, z)"
        " y = DequantizeLinear(o, s, z) }"
    )
    constants = {
        "w": weights.astype(dtype),
        "s": np.array(0.1, dtype),
        "z": np.array(0, np.int8),
    }
    model = network(text, constants, opset=opset)
    result = optimize(model, OptimizeOptions(check=False, enable=["quantize_conv_weights"]))
    (conv,) = [node for node in result.model.graph if node.op_type == "Conv"]
    return conv.inputs[1].producer(), result.log


def test_int8_weights_have_one_symmetric_scale_a_channel():
    weights = np.random.default_rng(0).standard_normal((3, 2, 1, 1)).astype(np.float32)
    weights[1] = 0.0  # a channel of zeros has scale 1
    dequantize, _ = int8_weights(weights)
    integers, scales = (dequantize.inputs[place].const_value.numpy() for place in (0, 1))
    amax = np.abs(weights).max(axis=(1, 2, 3))
    np.testing.assert_array_equal(scales, np.where(amax > 0, amax / np.float32(127), 1))
    assert np.abs(integers).max(axis=(1, 2, 3)).tolist() == [127, 0, 127]


@pytest.mark.parametrize(("opset", "written"), [(12, False), (13, True)])
def test_scales_along_an_axis_came_with_opset_13(opset, written):
    dequantize, log = int8_weights(np.ones((3, 2, 1, 1)), opset)
    assert (dequantize is not None) is written
    said = [note.text for note in log.declined.get("quantize_conv_weights", ())]
    assert written or any("opset 12 has no scales" in text for text in said)


@pytest.mark.parametrize(("opset", "written"), [(17, False), (19, True)])
def test_scales_of_half_floats_came_with_opset_19(opset, written):
    text = "t (float16[5,1,2] x) => (float16[5,1,1,3] y) { y = LSTM<hidden_size=3>(x, w, r) }"
    weights = {"w": np.ones((1, 12, 2), np.float16), "r": np.ones((1, 12, 3), np.float16)}
    model = network(text, weights, opset=opset)
    result = optimize(model, OptimizeOptions(check=False, enable=["quantize_lstm_weights"]))
    assert ("DequantizeLinear" in ops(result)) is written
    said = [note.text for note in result.log.declined.get("quantize_lstm_weights", ())]
    assert written or any("opset 17 has no scales of float16" in text for text in said)


@pytest.mark.parametrize(("opset", "num_inputs"), [(12, 1), (13, 2)])
def test_axes_are_an_operand_from_opset_13_on(opset, num_inputs):
    model = network("t (float[2,4] x) => (float[2,3] y) { y = Gemm(x, w) }", {"w": (4, 3)}, opset)
    result = optimized(model, enable=["convert_gemm_to_conv"])
    (squeeze,) = [node for node in result.model.graph if node.op_type == "Squeeze"]
    assert len(squeeze.inputs) == num_inputs


def test_a_form_that_comes_a_third_time_while_constants_grow_ends_the_rounds():
    class Grow(Pass):
        """Make a constant larger, in every round."""

        name = "grow_factor"
        anchors = frozenset({"Mul"})

        def rewrite(self, node, edit):
            content = node.inputs[1].const_value.numpy() * np.float32(1.5)
            edit.rewire(node, 1, edit.constant(content, near=node, hint="c"))
            return "grew"

    model = network("t (float[4] x) => (float[4] y) { y = Mul(x, c) }", {"c": (4,)})
    result = optimize(model, OptimizeOptions(check=False, passes=[Grow()]))
    assert "grow_factor" in result.log.undoing
    assert result.log.rounds == 3  # from the second on, tensors left unread by the first are gone


def test_a_slice_of_every_other_element_takes_no_whole_axis():
    text = "t (float[4,3] x) => (float[2,3] y) { s = Slice(x, a, b, c, d) y = Relu(s) }"
    constants = {name: np.array([n]) for name, n in (("a", 0), ("b", 4), ("c", 0), ("d", 2))}
    assert "Slice" in ops(optimized(network(text, constants)))


def test_a_squeeze_and_an_unsqueeze_of_axes_that_are_inputs_stay():
    text = (
        "t (float[1,4,1] x, int64[1] a, int64[1] b) => (float[p,q,r] y)"
        " { c = Neg(x) s = Squeeze(c, a) u = Unsqueeze(s, b) y = Relu(u) }"
    )
    result = optimize(network(text), OptimizeOptions(check=False))
    assert {"Squeeze", "Unsqueeze"} <= ops(result).keys()


def test_one_factor_is_folded_into_a_matrix_on_the_left():
    text = "t (float[4,3] x) => (float[2,3] y) { m = Mul(x, k) y = MatMul(w, m) }"
    constants = {"w": (2, 4), "k": np.array(0.5, np.float32)}
    assert "Mul" not in ops(optimized(network(text, constants)))


def test_a_matrix_stays_on_the_left_of_a_vector():
    model = network("t (float[4] x) => (float[3] y) { y = MatMul(w, x) }", {"w": (3, 4)})
    result = optimized(model, enable=["move_constant_to_right_of_matmul"])
    assert ops(result) == {"MatMul": 1}
