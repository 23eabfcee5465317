"""Lists of tensors: what becomes a Split, what stays, and what NVIDIA's parser says of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from tests.trtbuild.passes.networks import network, ops, optimized
from trtbuild.backends.tensorrt.apart import find_refusals_apart
from trtbuild.passes import OptimizeOptions, optimize
from trtbuild.runtime.tensorrt.versions import RTX, installed

CONVERT = "convert_split_to_sequence"


def whole(*numbers):
    return np.array(numbers, np.int64)


def number(value):
    return np.array(value, np.int64)


BECOME = {
    # name: (inputs, outputs, nodes, constants, remaining operators)
    "pieces of one size, the last one shorter": (
        "float[2,7,4] x", "float[2,1,4] y",
        "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i)",
        {"k": number(3), "i": number(-1)}, {"Split": 1}),
    "pieces of given sizes, and how many there are": (
        "float[n,7,4] x", "float[n,2,4] y, int64 z",
        "s = SplitToSequence<axis=-2>(x, k) y = SequenceAt(s, i) l = SequenceLength(s) z = Add(l, m)",
        {"k": whole(2, 5), "i": number(0), "m": number(1)}, {"Split": 1}),
    "given sizes of an axis of unknown length": (
        "float[n,4] x", "float[2,4] y",
        "s = SplitToSequence(x, k) y = SequenceAt(s, i)",
        {"k": whole(1, 1), "i": number(1)}, {"Split": 1}),
    "single elements without their axis": (
        "float[n,3,4] x", "float[n,4] y",
        "s = SplitToSequence<axis=1, keepdims=0>(x) a = SequenceAt(s, i) b = SequenceAt(s, j) y = Sub(a, b)",
        {"i": number(0), "j": number(2)}, {"Split": 1, "Squeeze": 2, "Sub": 1}),
    "single elements with their axis": (
        "float[n,3,4] x", "float[n,1,4] y",
        "s = SplitToSequence<axis=1>(x) y = SequenceAt(s, i)", {"i": number(1)}, {"Split": 1}),
    "one piece for two outputs": (
        "float[n,4] x", "float[n,2] y, float[n,2] z",
        "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i) z = SequenceAt(s, i)",
        {"k": number(2), "i": number(1)}, {"Split": 1, "Identity": 1}),
    "positions that are computed from constants": (
        "float[n,4] x", "float[n,2] y",
        "j = Sub(i, i) s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, j)",
        {"k": number(2), "i": number(1)}, {"Split": 1}),
}  # fmt: skip


@pytest.mark.parametrize("opset", [12, 17, 23])
@pytest.mark.parametrize("case", BECOME.values(), ids=BECOME)
def test_a_list_becomes_a_split(case, opset) -> None:
    inputs, outputs, nodes, constants, left = case
    model = network(f"t ({inputs}) => ({outputs}) {{ {nodes} }}", constants, opset=opset)
    result = optimized(model)
    assert ops(result) == left
    assert len(result.log.fired[CONVERT]) == 1


def test_pieces_of_a_given_size_keep_their_axis() -> None:
    """So says ONNX; ONNX Runtime drops the axis of pieces of one element."""
    model = network(
        "t (float[n,2,4] x) => (float[n,1,4] y) {"
        " s = SplitToSequence<axis=1, keepdims=0>(x, k) y = SequenceAt(s, i) }",
        {"k": number(1), "i": number(1)},
    )
    result = optimize(model, OptimizeOptions(check=False))
    assert ops(result) == {"Split": 1}
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)}
    wanted, found = (
        ReferenceEvaluator(ir.to_proto(one)).run(None, feeds)[0] for one in (model, result.model)
    )
    assert wanted.shape == (3, 1, 4)
    np.testing.assert_array_equal(found, wanted)


STAY = {
    "a length that is not known": (
        "float[m,n] x", "float[m,k] y", "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i)",
        {"k": number(1), "i": number(0)}, "the length of axis 1 is not known"),
    "a rank that is not known": (
        "float[n,4] x, int64[m] r", "float[a] y",
        "u = Reshape(x, r) s = SplitToSequence(u, k) y = SequenceAt(s, i)",
        {"k": number(1), "i": number(0)}, "the rank of its input is not known"),
    "a list that is an output": (
        "float[n,4] x", "float[n,2] y, seq(float[n,2]) s",
        "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i)",
        {"k": number(2), "i": number(0)}, "its list is an output"),
    "computed sizes": (
        "float[n,4] x, int64[2] k", "float[n,m] y",
        "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i)", {"i": number(0)},
        "the sizes of its pieces are computed"),
    "a computed position": (
        "float[n,4] x, int64 i", "float[n,2] y",
        "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i)", {"k": number(2)}, "is computed"),
    "a position that does not exist": (
        "float[n,4] x", "float[n,2] y", "s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i)",
        {"k": number(2), "i": number(2)}, "reads piece 2 of 2"),
    "another reader": (
        "float[n,4] x", "float[n,4] y, float[n,2] z",
        "s = SplitToSequence<axis=1>(x, k) y = ConcatFromSequence<axis=1>(s) z = SequenceAt(s, i)",
        {"k": number(2), "i": number(0)}, "a ConcatFromSequence reads its list, too"),
}  # fmt: skip


@pytest.mark.parametrize("case", STAY.values(), ids=STAY)
def test_a_list_stays_and_the_reason_is_said(case) -> None:
    inputs, outputs, nodes, constants, reason = case
    model = network(f"t ({inputs}) => ({outputs}) {{ {nodes} }}", constants)
    log = optimize(model, OptimizeOptions(check=False)).log
    assert CONVERT not in log.fired
    assert reason in log.declined[CONVERT][0].text


def test_nvidias_parser_takes_the_split_and_not_the_list(tmp_path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT for RTX, the extra 'rtx'")
    model = network(
        "t (float[n,7,4] x) => (float[n,2,4] y) {"
        " s = SplitToSequence<axis=1>(x, k) y = SequenceAt(s, i) }",
        {"k": whole(2, 5), "i": number(0)},
    )
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(ir.to_proto(model), before)
    onnx.save(ir.to_proto(optimized(model).model), after)
    refused = find_refusals_apart(installed(RTX), before)
    assert refused.refused[0].operator == "SplitToSequence"
    assert "`trtbuild optimize` writes it as a Split" in refused.refused[0].advice
    assert not find_refusals_apart(installed(RTX), after).refused
