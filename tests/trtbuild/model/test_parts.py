"""The parts of an output, found in typical graphs of exported detectors."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.model.parts import WHOLE, output_parts

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def parts(text: str, **weights: tuple[int, ...]):
    proto = onnx.parser.parse_model(f"{HEAD}\n{text}")
    for name, shape in weights.items():
        values = np.zeros(shape, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    found = output_parts(ir.serde.deserialize_model(proto))
    return [(part.axis, part.start, part.stop) for part in found["y"]]


BOXES_AND_SCORES = """
agraph (float[n, 8, 100] x) => (float[n, 22, 100] y) {
  b0 = Conv(x, wb)  s0 = Conv(x, ws)
  b1 = Sigmoid(b0)  s = Sigmoid(s0)
  pixels = Constant<value = float {320.0}>()
  b = Mul(b1, pixels)
  y = Concat<axis = 1>(b, s)
}"""


def test_boxes_and_scores_are_parts() -> None:
    found = parts(BOXES_AND_SCORES, wb=(4, 8, 1), ws=(18, 8, 1))
    assert found == [(1, 0, 4), (1, 4, 22)]


def test_joined_layers_of_the_same_kind_are_parts_along_their_channels() -> None:
    text = BOXES_AND_SCORES.replace("b = Mul(b1, pixels)", "").replace("(b, s)", "(b1, s)")
    assert parts(text, wb=(4, 8, 1), ws=(18, 8, 1)) == [(1, 0, 4), (1, 4, 22)]


def test_a_part_of_no_length_is_none() -> None:
    text = """
    agraph (float[n, 8, 100] x, float[n, 0, 100] none) => (float[n, 22, 100] y) {
      b = Conv(x, wb)  s0 = Conv(x, ws)  s = Sigmoid(s0)
      y = Concat<axis = 1>(b, none, s)
    }"""
    assert parts(text, wb=(4, 8, 1), ws=(18, 8, 1)) == [(1, 0, 4), (1, 4, 22)]


@pytest.mark.parametrize("count", [16, 17])
def test_many_tensors_side_by_side_are_a_collection(count: int) -> None:
    rows = [f"s{i} = Sigmoid(x{i})" if i % 2 else f"s{i} = Relu(x{i})" for i in range(count)]
    inputs = ", ".join(f"float[n, {i % 2 + 1}, 100] x{i}" for i in range(count))
    joined = ", ".join(f"s{i}" for i in range(count))
    text = f"agraph ({inputs}) => (float[n, m, 100] y) {{ {' '.join(rows)} y = Concat<axis = 1>({joined}) }}"
    assert len(parts(text)) == (16 if count == 16 else 1), "or the whole"


LEVELS = """
agraph (float[1, 8, 4, 4] x, float[1, 8, 2, 2] z) => (float[1, 20, 85] y) {
  flat = Constant<value = int64[3] {1, 85, -1}>()
  b1 = Conv(x, wb)  o1 = Conv(x, wo)  c1 = Conv(x, wc)
  p1 = Sigmoid(o1)  q1 = Sigmoid(c1)
  j1 = Concat<axis = 1>(b1, p1, q1)
  l1 = Reshape(j1, flat)
  b2 = Conv(z, wb)  o2 = Conv(z, wo)  c2 = Conv(z, wc)
  p2 = Sigmoid(o2)  q2 = Sigmoid(c2)
  j2 = Concat<axis = 1>(b2, p2, q2)
  l2 = Reshape(j2, flat)
  all = Concat<axis = 2>(l1, l2)
  y = Transpose<perm = [0, 2, 1]>(all)
}"""
HEADS = {"wb": (4, 8, 1, 1), "wo": (1, 8, 1, 1), "wc": (80, 8, 1, 1)}


def test_levels_are_no_parts_but_have_those_of_each_level() -> None:
    assert parts(LEVELS, **HEADS) == [(2, 0, 4), (2, 4, 5), (2, 5, 85)]


def test_levels_without_parts_are_one() -> None:
    one = LEVELS
    for level in "12":
        one = one.replace(f"Concat<axis = 1>(b{level}, p{level}, q{level})", f"Identity(c{level})")
    one = one.replace("{1, 85, -1}", "{1, 80, -1}").replace("1, 20, 85", "1, 20, 80")
    assert parts(one, **HEADS) == [(None, 0, 0)]


def test_a_softmax_over_joined_tensors_is_one_part() -> None:
    text = BOXES_AND_SCORES.replace("y = Concat", "j = Concat").replace(
        "(b, s)\n", "(b, s)\n  y = Softmax<axis = 1>(j)\n"
    )
    assert parts(text, wb=(4, 8, 1), ws=(18, 8, 1)) == [(None, 0, 0)]


@pytest.mark.parametrize(
    ("moved", "dims", "axis"),
    [
        ("Transpose<perm = [0, 2, 1]>(j)", "n, 100, 22", 2),
        ("Unsqueeze(j, one)", "n, 1, 22, 100", 2),
        ("Reshape(j, grid)", "n, 22, 10, 10", 1),
        ("Slice(j, one, ten, two)", "n, 22, 9", 1),
        ("Clip(j)", "n, 22, 100", 1),
    ],
)
def test_parts_outlive_what_only_moves_them(moved: str, dims: str, axis: int) -> None:
    text = BOXES_AND_SCORES.replace(
        "y = Concat<axis = 1>(b, s)",
        f"""
      one = Constant<value = int64[1] {{1}}>()
      two = Constant<value = int64[1] {{2}}>()
      ten = Constant<value = int64[1] {{10}}>()
      grid = Constant<value = int64[4] {{0, 22, 10, 10}}>()
      j = Concat<axis = 1>(b, s)
      y = {moved}""",
    ).replace("n, 22, 100] y", f"{dims}] y")
    found = parts(text, wb=(4, 8, 1), ws=(18, 8, 1))
    assert found == [(axis, 0, 4), (axis, 4, 22)]


def test_boxes_of_centres_and_sizes_beside_scores_are_three_parts() -> None:
    text = """
    agraph (float[n, 8, 100] x) => (float[n, 22, 100] y) {
      b = Conv(x, wb)  s0 = Conv(x, ws)
      low, high = Split<axis = 1>(b)
      centres = Add(low, high)  sizes = Sub(high, low)
      box = Concat<axis = 1>(centres, sizes)
      pixels = Mul(box, strides)
      s = Sigmoid(s0)
      y = Concat<axis = 1>(pixels, s)
    }"""
    found = parts(text, wb=(4, 8, 1), ws=(18, 8, 1), strides=(1, 100))
    assert found == [(1, 0, 2), (1, 2, 4), (1, 4, 22)]


def test_the_shapes_on_record_must_agree() -> None:
    text = BOXES_AND_SCORES.replace("n, 22, 100", "n, 23, 100")
    assert parts(text, wb=(4, 8, 1), ws=(18, 8, 1)) == [(None, 0, 0)]


def test_a_part_is_a_view_of_the_output() -> None:
    proto = onnx.parser.parse_model(f"{HEAD}\n{BOXES_AND_SCORES}")
    for name, shape in (("wb", (4, 8, 1)), ("ws", (18, 8, 1))):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        )
    boxes, scores = output_parts(ir.serde.deserialize_model(proto))["y"]
    output = np.arange(2 * 22 * 3).reshape(2, 22, 3)
    np.testing.assert_array_equal(boxes.of(output), output[:, :4])
    np.testing.assert_array_equal(scores.of(output), output[:, 4:])
    assert scores.of(output).base is not None
    assert boxes.fits(output)
    assert not boxes.fits(output[:, :21])
    np.testing.assert_array_equal(WHOLE.of(output), output)
    assert str(scores) == "channels 4 to 21 (axis 1)"
