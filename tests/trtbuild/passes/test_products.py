"""Einsum and left-hand constants as matrix products, over equations, orders and ranks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.trtbuild.passes.networks import network, ops, optimized

SIZES = dict(zip("abcdefgh", (2, 3, 4, 5, 2, 3, 4, 2)))


def einsum(equation, *, first="x", opset=17, result=None):
    """A network of one Einsum; the operand `first` comes first, the other is the weight ``w``."""
    left = equation.partition("->")[0].replace("...", "ab").split(",")
    names = ["x", "w"] if first == "x" else ["w", "x"]
    rng = np.random.default_rng(0)
    dims = {name: [SIZES[one] for one in term] for name, term in zip(names, left)}
    wanted = np.einsum(equation, *(np.zeros(dims[name]) for name in names)).shape
    weight = numpy_helper.from_array(rng.standard_normal(dims["w"]).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Einsum", names, ["y"], equation=equation, name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims["x"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, wanted)],
        [weight],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    )


@pytest.mark.parametrize(
    ("equation", "extra"),
    [
        ("abc,cd->abd", {}),
        ("abc,dc->abd", {}),
        ("abc,cde->abde", {"Reshape": 1}),
        ("abcd,cde->abe", {"Reshape": 1}),
        ("acb,cd->abd", {"Transpose": 1}),
        ("abc,cd->adb", {"Transpose": 1}),
        ("abcd,bde->abce", {}),
        ("...c,cd->...d", {}),
        ("ab,bc", {}),
        ("abc,cd->ab", {"Reshape": 1}),
    ],
)
def test_einsum_becomes_a_product(equation, extra):
    assert ops(optimized(einsum(equation))) == {"MatMul": 1, **extra}


def test_a_constant_first_operand():
    assert ops(optimized(einsum("dc,abc->abd", first="w"))) == {"MatMul": 1}


@pytest.mark.parametrize(
    "equation", ["aab,bc->ac", "ab,ab->ab", "ab,c->abc", "abc,cd->bd", "a,ab->b"]
)
def test_what_is_no_product_stays(equation):
    result = optimized(einsum(equation))
    assert ops(result) == {"Einsum": 1}
    assert any(run.declines for run in result.log.runs if run.name == "convert_einsum_to_matmul")


@pytest.mark.parametrize(
    "weight", ["", "<float[1, 5] w = {1, 2, 3, 4, 5}>"], ids=["input", "weight"]
)
def test_an_axis_that_is_repeated_stays(weight):
    inputs = "float[2, 3, 4] x" + (", float[1, 5] w" if not weight else "")
    result = optimized(
        network(
            f"t ({inputs}) => (float[2, 3, 5] y) {weight} "
            '{ y = Einsum <equation = "abc,cd->abd"> (x, w) }'
        )
    )
    assert ops(result) == {"Einsum": 1}
    runs = [run for run in result.log.runs if run.name == "convert_einsum_to_matmul"]
    assert "which Einsum repeats" in str(runs[0].declines)


def einsum_of_two(equation, *, dtype="float"):
    left, right, result = equation.replace("->", ",").split(",")
    x, w, y = (", ".join(str(SIZES[one]) for one in term) for term in (left, right, result))
    return network(
        f"t ({dtype}[{x}] x, {dtype}[{w}] w) => ({dtype}[{y}] y) "
        f'{{ y = Einsum <equation = "{equation}"> (x, w) }}'
    )


@pytest.mark.parametrize(
    ("equation", "transposes"),
    [
        ("abcd,abed->abce", 1),
        ("acbd,aebd->abce", 2),  # queries and keys with the heads after the positions
        ("abce,aebd->acbd", 2),  # Softmax's output and the values
        ("abcd,abde->abce", 0),
        ("abcd,abed->abec", 1),
    ],
)
def test_einsum_of_two_activations_becomes_a_product(equation, transposes):
    counts = {"MatMul": 1, "Transpose": transposes}
    found = ops(optimized(einsum_of_two(equation)))
    assert found == {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize(
    ("equation", "dtype"),
    [
        ("abc,abd->abcd", "float"),
        ("abcd,abe->acde", "float"),
        ("abc,acd->a", "float"),
        ("abcd,cde->abe", "float"),
        ("ab,bc->ac", "int32"),
    ],
)
def test_other_einsums_of_two_activations_stay(equation, dtype):
    assert ops(optimized(einsum_of_two(equation, dtype=dtype))) == {"Einsum": 1}


@settings(max_examples=50)
@given(data=st.data())
def test_any_equation_of_two_activations_computes_the_same(data):
    labels = data.draw(st.permutations("abcdef"))
    left = data.draw(st.permutations(labels[:4]))
    right = data.draw(st.permutations([*labels[:2], labels[3], labels[4]]))
    result = data.draw(st.permutations([*labels[:3], labels[4]]))
    equation = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    assert "Einsum" not in ops(optimized(einsum_of_two(equation)))


@settings(max_examples=100)
@given(data=st.data())
def test_any_equation_computes_the_same(data):
    labels = "abcdef"
    activation = data.draw(st.permutations(labels).map(lambda p: p[:4]))
    weight = data.draw(st.permutations(labels).map(lambda p: p[:3]))
    both = sorted({*activation, *weight})
    result = data.draw(
        st.permutations(both).flatmap(lambda p: st.integers(0, len(p)).map(lambda n: p[:n]))
    )
    optimized(einsum(f"{''.join(activation)},{''.join(weight)}->{''.join(result)}"))


@pytest.mark.parametrize("dims", ["8,5", "N,8,5", "2,N,8,5"])
def test_a_constant_on_the_left_goes_to_the_right(dims):
    out = dims.replace("8,5", "4,5")
    model = network(
        f"t (float[{dims}] x) => (float[{out}] y) {{ y = MatMul(w, x) }}", {"w": (4, 8)}
    )
    found = ops(optimized(model))
    assert found in ({"MatMul": 1, "Transpose": 2}, {"Gemm": 1, "Transpose": 1})
