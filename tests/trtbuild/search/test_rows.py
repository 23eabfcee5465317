"""Whether the images of a batch affect each other, found from the network alone."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from trtbuild.model.inference import infer_model
from trtbuild.search.rows import rows_are_apart, rows_meet

# Nodes from x, float[N, 4, 6], to y -> whether rows are known to be independent, and known to mix.
CASES = {
    "y = Relu(x)": (True, False),
    # the batch is used only as a length
    "d = Shape(x) n = Gather(d, first) s = Concat<axis = 0>(n, rest) y = Reshape(x, s)": (
        True,
        False,
    ),
    "d = Shape(x) r = ConstantOfShape(d) y = Add(x, r)": (True, False),
    "d = Shape(x) e = Expand(row, d) y = Mul(x, e)": (True, False),
    # computes with the length of another axis, as attention does
    "d = Shape(x) l = Gather(d, last) f = Cast<to = 1>(l) r = Sqrt(f) y = Div(x, r)": (True, False),
    "d = Shape<start = 1>(x) f = Cast<to = 1>(d) s = ReduceSum(f) y = Div(x, s)": (True, False),
    "d = Shape(x) l = Slice(d, two, three) f = Cast<to = 1>(l) y = Div(x, f)": (True, False),
    # computes with the length of the batch
    "d = Shape(x) n = Gather(d, first) f = Cast<to = 1>(n) r = Sqrt(f) y = Div(x, r)": (
        False,
        True,
    ),
    "d = Shape(x) f = Cast<to = 1>(d) s = ReduceSum(f) y = Div(x, s)": (False, True),
    "n = Size(x) f = Cast<to = 1>(n) y = Div(x, f)": (False, True),
    "d = Shape(x) n = Gather(d, first) c = Greater(n, two) y = Where(c, x, row)": (False, True),
    # operators along the batch
    "p = Softmax<axis = 0>(x) y = Relu(p)": (False, True),
    "s = ReduceSum(x, first) y = Sub(x, s)": (False, True),
    "s = ReduceMax(x) y = Sub(x, s)": (False, True),
    "s = CumSum(x, zero) y = Relu(s)": (False, True),
    "y = MeanVarianceNormalization<axes = [0, 1]>(x)": (False, True),
    "y, m, v = BatchNormalization<training_mode = 1>(x, four, four, four, four)": (False, True),
    "d = Shape(x) r = ConstantOfShape(d) c = CumSum(r, zero) y = Add(x, c)": (False, True),
    # operators along other axes
    "y = BatchNormalization(x, four, four, four, four)": (True, False),
    "s = ReduceSum(x, two) y = Sub(x, s)": (True, False),
    "p = Softmax(x) y = Relu(p)": (True, False),
    # the batch axis moves: its new place is known, but not that rows stay independent
    "t = Transpose<perm = [1, 0, 2]>(x) p = Softmax(t) y = Transpose<perm = [1, 0, 2]>(p)": (
        False,
        False,
    ),
    "t = Transpose<perm = [1, 2, 0]>(x) p = Softmax(t) y = Transpose<perm = [2, 0, 1]>(p)": (
        False,
        True,
    ),
}


@pytest.mark.parametrize(("nodes", "wanted"), CASES.items(), ids=CASES)
def test_rows_are_known_to_be_independent_or_to_mix(nodes: str, wanted: tuple[bool, bool]) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4, 6] x) => (float[N, 4, 6] y)
        <int64 zero = {{0}}, int64[1] first = {{0}}, int64[1] two = {{2}}, int64[1] three = {{3}},
        int64 last = {{-1}}, int64[2] rest = {{4, 6}}, float[1] row = {{1}},
        float[4] four = {{1, 1, 1, 1}}> {{ {nodes} }}"""
    )
    infer_model(model)
    assert (rows_are_apart(model), rows_meet(model)) == wanted
