"""Reshapes, layouts, slices, activations and copies: what is removed, what stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trtbuild.passes.networks import network, ops, optimized


def text(inputs, outputs, body):
    return f"t ({inputs}) => ({outputs}) {{ {body} }}"


def vector(*values):
    return np.array(values, np.int64)


CASES = {
    "batch that is computed, and comes back": (
        text("float[n,8] x", "float[n,8] y",
             "r = Reshape(x, a) s = Sin(r) t = Reshape(s, b) u = Reshape(t, c) y = Reshape(u, b)"),
        {"a": vector(-1, 2, 4), "b": vector(-1, 8), "c": vector(-1, 4, 2)},
        {"Reshape": 2, "Sin": 1}),
    "dims without a name": (
        text("float[?,8] x", "float[?,8] y", "u = Unsqueeze(x, a) r = Reshape(u, b) y = Sin(r)"),
        {"a": vector(1), "b": vector(-1, 8)}, {"Sin": 1}),
    # name: (network, weights, remaining operators)
    "reshape and back, symbolic batch": (
        text("float[n,4,1,1] x", "float[n,4,1,1] y",
             "f = Flatten(x) u = Unsqueeze(f, a) y = Relu(u)"),
        {"a": vector(2, 3)}, {"Relu": 1}),
    "reshape chain with a 0 of the middle": (
        text("float[2,3,4] x", "float[6,2,2] y", "r = Reshape(x, a) y = Reshape(r, b)"),
        {"a": vector(6, 4), "b": vector(0, 2, 2)}, {"Reshape": 1}),
    "0 copies one dim, -1 takes the rest": (
        text("float[n,8] x", "float[n,2,4] y", "r = Reshape(x, a) s = Reshape(r, b) y = Relu(s)"),
        {"a": vector(0, 8, 1), "b": vector(0, 2, -1)}, {"Reshape": 1, "Relu": 1}),
    "computed shape of a symbolic tensor": (
        text("float[n,8] x", "float[n,2,4] y",
             "s = Shape(x) g = Gather(s, z) t = Concat<axis=0>(g, a) y = Reshape(x, t)"),
        {"z": vector(0), "a": vector(2, 4)}, {"Reshape": 1}),
    "squeeze of a negative axis": (
        text("float[n,4] x", "float[n,4] y", "u = Unsqueeze(x, a) s = Squeeze(u, b) y = Relu(s)"),
        {"a": vector(2), "b": vector(-1)}, {"Relu": 1}),
    "leading ones of a broadcast": (
        text("float[3,4] x, float[2,3,4] z", "float[2,3,4] y", "u = Unsqueeze(x, a) y = Add(u, z)"),
        {"a": vector(0)}, {"Add": 1}),
    "leading one that makes the rank": (
        text("float[3,4] x, float[3,4] z", "float[1,3,4] y", "u = Unsqueeze(x, a) y = Add(u, z)"),
        {"a": vector(0)}, {"Add": 1, "Unsqueeze": 1}),
    "transposes around a bias and an activation": (
        text("float[1,3,3,3] x", "float[1,3,3,3] y",
             "a = Transpose<perm=[0,2,3,1]>(x) b = Add(a, k) c = Relu(b)"
             " y = Transpose<perm=[0,3,1,2]>(c)"),
        {"k": (3,)}, {"Add": 1, "Relu": 1}),
    "transposed pieces of a concatenation": (
        text("float[1,3,3,3] x", "float[1,3,6,3] y",
             "a = Transpose<perm=[0,2,3,1]>(x) r = Relu(x) b = Transpose<perm=[0,2,3,1]>(r)"
             " y = Concat<axis=2>(a, b)"),
        {}, {"Concat": 1, "Relu": 1, "Transpose": 1}),
    "different transposes of two terms": (
        text("float[3,3,3] x", "float[3,3,3] y",
             "a = Transpose<perm=[1,0,2]>(x) r = Relu(x) b = Transpose<perm=[0,2,1]>(r)"
             " y = Add(a, b)"),
        {}, {"Add": 1, "Relu": 1, "Transpose": 2}),
    "transposes around quantisation": (
        text("float[1,2,3,4] x", "float[1,2,3,4] y",
             "a = Transpose<perm=[0,2,3,1]>(x) q = QuantizeLinear(a, s, z)"
             " d = DequantizeLinear(q, s, z) y = Transpose<perm=[0,3,1,2]>(d)"),
        {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)},
        {"DequantizeLinear": 1, "QuantizeLinear": 1}),
    "slice of all but in two axes": (
        text("float[2,5,n] x", "float[2,5,n] y", "s = Slice(x, a, b, c) y = Relu(s)"),
        {"a": vector(-9, 0), "b": vector(5, 2**62), "c": vector(1, -1)}, {"Relu": 1}),
    "slice of a symbolic axis up to a literal": (
        text("float[n] x", "float[m] y", "s = Slice(x, a, b) y = Relu(s)"),
        {"a": vector(0), "b": vector(1000)}, {"Relu": 1, "Slice": 1}),
    "pieces of a concatenation, in another order": (
        text("float[2,3] x", "float[2,3] y, float[2,3] z",
             "r = Relu(x) n = Neg(x) c = Concat<axis=-1>(r, n) p, q = Split<axis=1>(c, a)"
             " y = Tanh(q) z = Tanh(p)"),
        {"a": vector(3, 3)}, {"Neg": 1, "Relu": 1, "Tanh": 2}),
    "clips that cross": (
        text("float[n,9] x", "float[n,9] y", "a = Clip(x, p, q) y = Clip(a, r, s)"),
        {k: np.array(v, np.float32) for k, v in zip("pqrs", (0, 6, 7, 9))}, {"Clip": 1}),
    "clip below zero, then Relu": (
        text("float[n,9] x", "float[n,9] y", "a = Clip(x, p, q) y = Relu(a)"),
        {"p": np.array(-3, np.float32), "q": np.array(-1, np.float32)}, {"Clip": 1}),
    "Max and Min by tensors of one value": (
        text("float[n,4] x", "float[n,4] y", "a = Max(p, x) y = Min(a, q)"),
        {"p": np.zeros(4, np.float32), "q": np.full((1, 4), 6, np.float32)}, {"Clip": 1}),
    "layer normalisation over two axes, scalar scale": (
        text("float[n,3,5] x", "float[n,3,5] y",
             "m = ReduceMean<axes=[1,2]>(x) d = Sub(x, m) q = Mul(d, d)"
             " v = ReduceMean<axes=[-2,-1]>(q) e = Add(k, v) r = Sqrt(e) i = Reciprocal(r)"
             " h = Mul(i, d) y = Mul(h, g)"),
        {"k": np.array(1e-3, np.float32), "g": np.array(2, np.float32)},
        {"LayerNormalization": 1}),
    "prelu of tensorflow, divided": (
        text("float[n,4] x", "float[n,4] y",
             "p = Relu(x) a = Abs(x) s = Sub(x, a) h = Div(s, t) m = Mul(h, k) y = Sub(p, m)"),
        {"t": np.array(2, np.float32), "k": (4,)}, {"PRelu": 1}),
    "mean over the plane, axis by axis, dims dropped": (
        text("float[n,4,5,6] x", "float[n,4] y",
             "a = ReduceMean<axes=[3],keepdims=0>(x) y = ReduceMean<axes=[2],keepdims=0>(a)"),
        {}, {"Flatten": 1, "GlobalAveragePool": 1}),
    "two branches of equal weights under two names": (
        text("float[2,4] x", "float[2,4] y",
             "a = MatMul(x, v) b = MatMul(x, w) c = Relu(a) d = Relu(b) y = Sub(c, d)"),
        {"v": np.eye(4, dtype=np.float32), "w": np.eye(4, dtype=np.float32)},
        {"MatMul": 1, "Relu": 1, "Sub": 1}),
    "zero and minus zero": (
        text("float[4] x", "float[4] y", "a = Div(x, p) b = Div(x, q) y = Add(a, b)"),
        {"p": np.array(0.0, np.float32), "q": np.array(-0.0, np.float32)}, {"Add": 1, "Div": 2}),
    "mask of a dropout that is read": (
        text("float[n,4] x", "float[n,4] y, bool[n,4] m", "d, m = Dropout(x) y = Relu(d)"),
        {}, {"ConstantOfShape": 1, "Relu": 1, "Shape": 1}),
    "int32 through int64": (
        text("int32[n] x", "int32[n] y", "a = Cast<to=7>(x) b = Cast<to=6>(a) y = Neg(b)"),
        {}, {"Neg": 1}),
    "int64 through int32": (
        text("int64[n] x", "int64[n] y", "a = Cast<to=6>(x) b = Cast<to=7>(a) y = Neg(b)"),
        {}, {"Cast": 2, "Neg": 1}),
    "constant branch of an If, with its constants": (
        text("float[n,4] x", "float[n,4] y",
             "k = Not(f) y = If(k)<then_branch = a () => (float[n,4] p) "
             "{ c = Constant<value_float=3.0>() p = Mul(x, c) },"
             " else_branch = b () => (float[n,4] q) { q = Neg(x) }>"),
        {"f": np.array(False)}, {"Mul": 1}),
    "inside the branches of an If": (
        text("bool k, float[1,4,3,3] x", "float[1,4,3,3] y",
             "y = If(k)<then_branch = a () => (float[1,4,3,3] p) "
             "{ c = Conv(x, w) d = Identity(c) p = Mul(d, s) },"
             " else_branch = b () => (float[1,4,3,3] q) "
             "{ t = Transpose<perm=[0,1,2,3]>(x) q = Relu(t) }>"),
        {"w": (4, 4, 1, 1), "s": (4, 1, 1)}, {"Conv": 1, "If": 1, "Relu": 1}),
    "shuffle undone in other groups": (
        text("float[1,6,2,2] x", "float[1,6,2,2] y",
             "a = Reshape(x, p) b = Transpose<perm=[0,2,1,3,4]>(a) c = Reshape(b, r)"
             " d = Reshape(c, q) e = Transpose<perm=[0,2,1,3,4]>(d) f = Reshape(e, r) y = Relu(f)"),
        {"p": vector(1, 2, 3, 2, 2), "q": vector(1, 3, 2, 2, 2), "r": vector(1, 6, 2, 2)},
        {"Relu": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_expected_operators_remain(case):
    source, weights, left = case
    result = optimized(network(source, weights))
    assert ops(result) == left
    assert not optimized(result.model).log.fired


def test_huge_expand_is_not_written_out():
    source = text(
        "float[1] x", "float[1] y", "e = Expand(k, s) m = ReduceMax<keepdims=0>(e) y = Add(x, m)"
    )
    result = optimized(network(source, {"k": np.array(2, np.float32), "s": vector(2000, 2000)}))
    assert "Expand" in ops(result)
    assert "would write" in result.log.declined["fold_constants"][0].text


def test_random_numbers_are_drawn_twice():
    source = text(
        "float[9] x",
        "float[9] y",
        "a = RandomUniformLike(x) b = RandomUniformLike(x) y = Sub(a, b)",
    )
    from trtbuild.passes import optimize

    result = optimize(network(source))
    assert ops(result) == {"RandomUniformLike": 2, "Sub": 1}
    assert "random numbers" in result.log.comparison
