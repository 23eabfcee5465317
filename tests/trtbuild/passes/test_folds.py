"""Folds into layers: what is folded, what stays and why, over ranks, groups, types and opsets."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.trtbuild.passes.networks import network, ops, optimized
from trtbuild.passes import optimize

BN = dict.fromkeys(("gamma", "beta", "mean"), (4,)) | {
    "var": np.array([0.5, 1.0, 2.0, 0.1], np.float32)
}
NORM = "BatchNormalization(c, gamma, beta, mean, var)"


@pytest.mark.parametrize(
    ("dims", "weight", "group"),
    [
        ("1,4,9", (4, 4, 3), 1),
        ("1,4,9,7", (4, 2, 3, 1), 2),
        ("1,4,5,6,7", (4, 1, 1, 2, 3), 4),
    ],
)
@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_batch_norm_into_convolutions_of_any_rank(dims, weight, group, opset):
    out = ",".join("?" if place > 1 else size for place, size in enumerate(dims.split(",")))
    text = f"t (float[{dims}] x) => (float[{out}] y) {{ c = Conv<group={group}>(x, w) y = {NORM} }}"
    result = optimized(network(text, {"w": weight, **BN}, opset=opset))
    assert ops(result) == {"Conv": 1}


@pytest.mark.parametrize("group", [1, 2])
def test_scale_shift_and_norm_into_a_transposed_convolution(group):
    text = (
        f"t (float[1,4,5,5] x) => (float[1,4,?,?] y) {{ a = ConvTranspose<group={group}>(x, w)"
        f" b = Mul(a, s) c = Add(t, b) y = {NORM} }}"
    )
    weights = {"w": (4, 4 // group, 2, 2), "s": (1, 4, 1, 1), "t": (4, 1, 1), **BN}
    assert ops(optimized(network(text, weights))) == {"ConvTranspose": 1}


def test_half_floats_stay_half():
    model = network(
        "t (float16[1,4,5,5] x) => (float16[1,4,5,5] y) { c = Conv(x, w) d = Mul(c, s) y = Add(d, t) }",
        {
            "w": np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float16),
            "s": np.linspace(0.5, 2, 4, dtype=np.float16).reshape(1, 4, 1, 1),
            "t": np.ones((1, 4, 1, 1), np.float16),
        },
    )
    result = optimized(model)
    assert ops(result) == {"Conv": 1}
    kinds = {value.dtype for value in result.model.graph.initializers.values()}
    assert kinds == {ir.DataType.FLOAT16}


def test_overflow_of_half_floats_is_declined():
    model = network(
        "t (float16[1,1,2,2] x) => (float16[1,1,2,2] y) { c = Conv(x, w) y = Mul(c, s) }",
        {
            "w": np.full((1, 1, 1, 1), 6e4, np.float16),
            "s": np.full((1, 1, 1, 1), 8, np.float16),
        },
    )
    result = optimize(model)
    assert result.after.nodes["Mul"] == 1
    assert "not finite" in result.log.declined["fold_scale_into_conv"][0].text


@pytest.mark.parametrize(
    ("constant", "reason"),
    [
        ((4,), "not per channel"),
        ((1, 4, 6, 4), "not per channel"),
        ((3, 1, 1, 1), "not per channel"),
        ((1, 1, 4, 1, 1), "higher rank"),
    ],
)
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_what_is_not_per_channel_stays(op, constant, reason):
    text = f"t (float[1,4,6,4] x) => (float[?,?,?,?] y) {{ c = Conv(x, w) y = {op}(c, b) }}"
    if len(constant) > 4:
        text = text.replace("[?,?,?,?]", "[?,?,?,?,?]")
    result = optimized(network(text, {"w": (4, 4, 1, 1), "b": constant}))
    assert ops(result)[op] == 1
    declined = [note.text for notes in result.log.declined.values() for note in notes]
    assert any(reason in text for text in declined)


def test_one_channel_is_not_widened():
    text = "t (float[1,4,5,5] x) => (float[1,3,5,5] y) { c = Conv(x, w) y = Add(c, b) }"
    assert ops(optimized(network(text, {"w": (1, 4, 1, 1), "b": (1, 3, 1, 1)})))["Add"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "t (float[1,4,5,5] x) => (float[1,4,5,5] y, float[1,4,5,5] c) { c = Conv(x, w) y = Mul(c, s) }",
        (
            "t (float[1,4,5,5] x) => (float[1,4,5,5] y) "
            "{ c = Conv(x, w) d = Mul(c, s) e = Relu(c) y = Add(d, e) }"
        ),
        (
            "t (float[1,4,5,5] x, bool k) => (float[1,4,5,5] y) { c = Conv(x, w) d = Mul(c, s) "
            "y = If(k)<then_branch = a () => (float[1,4,5,5] p) { p = Relu(c) }, "
            "else_branch = b () => (float[1,4,5,5] q) { q = Relu(d) }> }"
        ),
    ],
    ids=["output", "second reader", "captured by a body"],
)
def test_tensor_that_somebody_else_sees_stays(text):
    weights = {"w": (4, 4, 1, 1), "s": (1, 4, 1, 1)}
    assert ops(optimized(network(text, weights)))["Mul"] == 1


def test_shared_weights_are_copied():
    text = (
        "t (float[1,4,5,5] x) => (float[1,4,5,5] y, float[1,4,5,5] z) "
        "{ c = Conv(x, w) y = Mul(c, s) d = Relu(x) z = Conv(d, w) }"
    )
    result = optimized(network(text, {"w": (4, 4, 1, 1), "s": (1, 4, 1, 1)}))
    assert ops(result) == {"Conv": 2, "Relu": 1}
    assert result.after.parameters == 32


@pytest.mark.parametrize("bias", [None, (), (1,), (4,), (1, 4)])
@pytest.mark.parametrize("trans", [0, 1])
def test_everything_behind_a_gemm(bias, trans):
    third = "" if bias is None else ", k"
    text = (
        f"t (float[n,6] x) => (float[n,4] y) {{ a = Gemm<alpha=0.5, beta=2.0, transB={trans}>"
        f"(x, w{third}) b = Add(a, row) c = Mul(b, s) y = {NORM} }}"
    )
    weights = {"w": (4, 6) if trans else (6, 4), "row": (1, 4), "s": (4,), **BN}
    if bias is not None:
        weights["k"] = bias
    assert ops(optimized(network(text, weights))) == {"Gemm": 1}


@pytest.mark.parametrize("row", [(2, 4), (3, 1, 4)])
def test_gemm_takes_no_addend_that_makes_it_larger(row):
    out = "float[?,4]" if len(row) == 2 else "float[?,?,4]"
    text = f"t (float[1,6] x) => ({out} y) {{ a = Gemm(x, w) y = Add(a, row) }}"
    assert ops(optimized(network(text, {"w": (6, 4), "row": row})))["Add"] == 1


def test_factor_in_front_of_a_batched_product_goes_into_the_matrix():
    text = "t (float[2,n,6] x) => (float[2,n,4] y) { a = Div(x, d) b = MatMul(a, w) y = Mul(b, s) }"
    weights = {"w": (6, 4), "d": np.array(8, np.float32), "s": (4,)}
    assert ops(optimized(network(text, weights))) == {"MatMul": 1}


def test_factor_per_row_of_a_product_stays():
    text = "t (float[3,6] x) => (float[3,4] y) { b = MatMul(x, w) y = Mul(b, s) }"
    assert ops(optimized(network(text, {"w": (6, 4), "s": (3, 1)})))["Mul"] == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_norm_behind_int8_weights_goes_into_their_scales(sign):
    random = np.random.default_rng(3)
    weights = {
        "w8": random.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
        "ws": np.linspace(0.005, 0.02, 4, dtype=np.float32),
        "wz": np.zeros(4, np.int8),
        "bias": (4,),
        **BN,
        "gamma": (sign * np.array([1.0, -2.0, 0.5, 3.0])).astype(np.float32),
    }
    text = (
        "t (float[1,4,6,6] x) => (float[1,4,4,4] y) { w = DequantizeLinear<axis=0>(w8, ws, wz) "
        f"c = Conv(x, w, bias) n = {NORM} y = Relu(n) }}"
    )
    result = optimized(network(text, weights))
    assert ops(result) == {"Conv": 1, "DequantizeLinear": 1, "Relu": 1}
    held = {v.name: v.const_value.numpy() for v in result.model.graph.initializers.values()}
    scales = [
        a for a in held.values() if a.dtype == np.float32 and a.shape == (4,) and (a > 0).all()
    ]
    integers = [a for a in held.values() if a.dtype == np.int8 and a.ndim == 4]
    assert scales
    np.testing.assert_array_equal(np.abs(integers[0]), np.abs(weights["w8"]))


def test_smallest_integer_has_no_opposite():
    weights = {
        "w8": np.full((4, 4, 1, 1), -128, np.int8),
        "ws": np.full(4, 0.01, np.float32),
        **BN,
        "gamma": np.full(4, -1, np.float32),
    }
    text = (
        "t (float[1,4,6,6] x) => (float[1,4,6,6] y) "
        f"{{ w = DequantizeLinear<axis=0>(w8, ws) c = Conv(x, w) y = {NORM} }}"
    )
    result = optimized(network(text, weights))
    assert "BatchNormalization" in ops(result)


def test_training_mode_stays():
    text = (
        "t (float[2,4,6,6] x) => (float[2,4,6,6] y) { c = Conv(x, w) "
        f"y, m, v = {NORM.replace('Normalization(', 'Normalization<training_mode=1>(')} }}"
    )
    assert ops(optimized(network(text, {"w": (4, 4, 1, 1), **BN})))["BatchNormalization"] == 1


def test_pad_of_zeros_goes_into_the_convolution_and_no_other():
    text = "t (float[1,2,5,5] x) => (float[1,4,?,?] y) { p = Pad(x, widths) y = Conv<pads=[1,0,0,1]>(p, w) }"
    widths = np.array([0, 0, 1, 2, 0, 0, 0, 1])
    result = optimized(network(text, {"w": (4, 2, 3, 3), "widths": widths}))
    assert ops(result) == {"Conv": 1}
    proto = ir.to_proto(result.model)
    (pads,) = (a for a in proto.graph.node[0].attribute if a.name == "pads")
    assert list(onnx.helper.get_attribute_value(pads)) == [2, 2, 0, 2]
    channels = np.array([0, 1, 0, 0, 0, 1, 0, 0])
    result = optimized(network(text, {"w": (4, 4, 3, 3), "widths": channels}))
    assert ops(result)["Pad"] == 1
