"""FP16 in the network: the types, and that ONNX Runtime computes accordingly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.model import name_nodes, read_model
from trtbuild.quantization.half import HALF_MAX, to_half
from trtbuild.quantization.half_rounding import as_rounding_floats
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT

rounds_fp16 = pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 30),
    reason="before 1.30 ONNX Runtime's QuantizeLinear of FP16 truncates: 0.6 steps become 0",
)


def _model(text: str, **weights: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    for name, value in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    return model


def _run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def _strictly(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run every operator in its own type; on a CPU, ONNX Runtime computes chains of FP16 in FP32."""
    with np.errstate(over="ignore"):
        return np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0])


def _dtypes(model: ir.Model, op_type: str) -> set[ir.DataType | None]:
    return {node.outputs[0].dtype for node in model.graph if node.op_type == op_type}


def test_a_float_network_computes_in_fp16_and_keeps_its_interface() -> None:
    model = networks.network("N")
    half, kept = to_half(model, {})
    assert kept == ()
    assert [v.dtype for v in (*half.graph.inputs, *half.graph.outputs)] == [FLOAT, FLOAT]
    assert [v.name for v in half.graph.outputs] == ["scores"]
    assert _dtypes(half, "Conv") == _dtypes(half, "Add") == _dtypes(half, "Gemm") == {HALF}
    assert {v.dtype for v in half.graph.initializers.values()} == {HALF}
    # Two casts, at input and output; more would cause reformats in the engine.
    assert sum(node.op_type == "Cast" for node in half.graph) == 2
    feeds = networks.batches(1, 4)[0]
    (got,), (wanted,) = _run(half, feeds), _run(model, feeds)
    # Rounding of 2**-11 at the input, each weight and each of 7 results; sums of 144 products of either sign
    # grow it by no more than the sum of magnitudes, here below 4 times the largest output.
    assert np.abs(got - wanted).max() < 9 * 4 * 2**-11 * np.abs(wanted).max()
    assert np.abs(got - wanted).max() > 0  # FP16 did round
    assert _dtypes(model, "Conv") <= {None, FLOAT}  # the given network is unchanged


def test_q_dq_become_fp16_with_their_scales() -> None:
    artifact = networks.calibrated("N")
    assert artifact.quantized is not None
    half, kept = to_half(artifact.quantized, {})
    assert kept == ()
    assert half.opset_imports[""] >= 19
    for node in half.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert node.inputs[1] is not None
            assert node.inputs[1].dtype == HALF
    assert _dtypes(half, "DequantizeLinear") == {HALF}
    # No cast between a convolution and its Q/DQ: it would keep TensorRT from fusing them.
    assert sum(node.op_type == "Cast" for node in half.graph) == 2


@rounds_fp16
def test_q_dq_in_fp16_give_the_result_of_q_dq_in_fp32() -> None:
    artifact = networks.calibrated("N")
    assert artifact.quantized is not None
    half, _ = to_half(artifact.quantized, {})
    feeds = networks.batches(1, 16, seed=4)[0]
    (got,), (wanted,), (plain,) = (
        _run(model, feeds) for model in (half, artifact.quantized, artifact.model)
    )
    # FP16 moves some values over a rounding boundary, so its error is compared with the INT8 noise. Half of
    # that noise in RMS is far more than measured (a tenth), and far less than a wrong scale or axis gives.
    int8_noise = np.sqrt(np.mean((wanted - plain) ** 2))
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.5 * int8_noise


@rounds_fp16
def test_opset_is_raised_for_fp16_scales(tmp_path: Path) -> None:
    model = _model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 4] x) => (float[2, 4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            y = Relu(d)
        }""",
        s=np.float32(0.5),
        z=np.int8(0),
    )
    half, _ = to_half(model, {})
    assert half.opset_imports[""] == 19
    x = np.array([[0.2, 0.3, 100, -3], [0.75, 1.25, 63.4, 63.6]], np.float32)
    # Halves are exact in FP16: round half to even, saturate at 127.
    assert _run(half, {"x": x})[0].tolist() == [[0, 0.5, 63.5, 0], [1.0, 1.0, 63.5, 63.5]]
    onnx.save(ir.to_proto(half), tmp_path / "half.onnx")
    assert read_model(tmp_path / "half.onnx").graph.outputs[0].name == "y"


@rounds_fp16
def test_weights_in_another_file_become_fp16_too(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model = _model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4] x) => (float[2, 4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            y = MatMul(d, w)
        }""",
        s=np.float32(0.5),
        z=np.int8(0),
        w=weight,
    )
    path = tmp_path / "there" / "given.onnx"
    path.parent.mkdir()
    ir.save(model, path, external_data="weights", size_threshold_bytes=0)
    half, _ = to_half(read_model(path), {})
    x = np.array([[0.2, 0.3, 100, -3], [0.75, 1.25, 63.4, 63.6]], np.float32)
    d, w = np.array([[0, 0.5, 63.5, -3], [1, 1, 63.5, 63.5]]), weight.astype(np.float16)
    # d is exact in FP16; each of four products and three sums may be rounded, by 2**-11 of its size
    assert (np.abs(_run(half, {"x": x})[0] - d @ w) <= 7 * 2**-11 * (np.abs(d) @ np.abs(w))).all()


def test_a_tensor_that_would_overflow_stays_fp32() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2, 3] x) => (float[2, 3] y) {
            big = Mul(x, c)
            small = Mul(big, d)
            y = Relu(small)
        }""",
        c=np.float32(3e4),
        d=np.float32(1e-4),
    )
    x = np.array([[1, 2, 3], [4, -5, 6]], np.float32)
    half, kept = to_half(model, {"big": 1.8e5, "small": 18.0})
    assert [k.node for k in kept] == ["Mul_big", "Mul_small"]
    assert "tensor 'big' reached 180000, and FP16 ends at 65504" in kept[0].reason
    assert _dtypes(half, "Relu") == {HALF}
    np.testing.assert_allclose(_strictly(half, {"x": x}), np.maximum(3 * x, 0), rtol=2**-10)
    blind, _ = to_half(model, {})  # without the range it does overflow
    assert not np.isfinite(_strictly(blind, {"x": x})).all()


def test_headroom_is_kept() -> None:
    model = networks.network("N")
    below, _ = to_half(model, {"sum": HALF_MAX / 4 * 0.99})
    above, kept = to_half(model, {"sum": HALF_MAX / 4 * 1.01})
    assert _dtypes(below, "Add") == {HALF}
    assert _dtypes(above, "Add") == {FLOAT}
    assert {k.op_type for k in kept} == {"Add", "Relu"}


def test_a_range_counts_for_the_tensor_behind_q_dq_too() -> None:
    artifact = networks.calibrated("N")
    assert artifact.quantized is not None
    half, kept = to_half(artifact.quantized, {"r1": 5e4})
    reasons = {k.node: k.reason for k in kept}
    assert "Conv_c2" in reasons
    assert "reached 50000" in reasons["Conv_c2"]
    pairs = [n for n in half.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "r1"]
    assert [n.inputs[1].dtype for n in pairs] == [FLOAT]


def test_weights_beyond_fp16_stay_fp32() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 2] x) => (float[1, 2] y) { y = MatMul(x, w) }""",
        w=np.array([[1e5, 0], [0, 1]], np.float32),
    )
    half, (kept,) = to_half(model, {})
    assert "constant 'w' holds 100000" in kept.reason
    assert _run(half, {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[1e5, 1]]


@pytest.mark.parametrize("scale", [3e-9, 1e-8])
def test_an_activation_scale_that_vanishes_in_fp16_keeps_its_pair_fp32(scale: float) -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
            y = Relu(d) }""",
        s=np.float32(scale),
        z=np.int8(0),
    )
    half, kept = to_half(model, {})
    # and its reader: a Cast between them would prevent an INT8 kernel
    assert {k.op_type for k in kept} == {"QuantizeLinear", "DequantizeLinear", "Relu"}
    assert all("too small for FP16" in one.reason for one in kept)
    assert _dtypes(half, "DequantizeLinear") == _dtypes(half, "Relu") == {FLOAT}


def _sources(model: ir.Model, op_type: str) -> list[tuple[str, ir.DataType | None]]:
    """The producers of the first two inputs of each node of a kind, with their types."""
    return [
        (value.producer().op_type, value.dtype)
        for node in model.graph
        if node.op_type == op_type
        for value in node.inputs[:2]
    ]


@rounds_fp16
def test_no_cast_stands_between_q_dq_and_a_layer_of_either_type() -> None:
    """A layer in FP16 and one that its result keeps in FP32 read the same pair and the same INT8 weight."""
    weight = np.random.default_rng(3).integers(-127, 128, (4, 4)).astype(np.int8)
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2, 4] x) => (float[2, 4] y, float[2, 4] wide) {
            q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
            w = DequantizeLinear <axis = 1> (wq, ws, wz)
            a = MatMul(d, w) wide = MatMul(d, w) y = Relu(a)
        }""",
        s=np.float32(0.0123),
        z=np.int8(0),
        wq=weight,
        ws=np.array([0.01, 0.02, 0.03, 0.04], np.float32),
        wz=np.zeros(4, np.int8),
    )
    half, kept = to_half(model, {"wide": 60000.0})
    assert [one.op_type for one in kept] == ["MatMul"]
    both = [("DequantizeLinear", dtype) for dtype in (HALF, HALF, FLOAT, FLOAT)]
    assert _sources(half, "MatMul") == both
    # Q and both DQ of the pair have the same scale, that of FP16
    pair = [
        node.inputs[1].const_value.numpy()
        for node in half.graph
        if node.inputs[0].name != "wq"
        and node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and node.inputs[1].const_value.numpy().size == 1
    ]
    assert len(pair) == 3
    assert {float(scale) for scale in pair} == {float(np.float16(0.0123))}
    x = np.random.default_rng(4).normal(size=(2, 4)).astype(np.float32)
    steps = np.clip(
        np.rint(x.astype(np.float16).astype(np.float32) / np.float32(np.float16(0.0123))), -128, 127
    )
    product = (steps * float(np.float16(0.0123))) @ (weight * np.array([0.01, 0.02, 0.03, 0.04]))
    assert _run(half, {"x": x})[1] == pytest.approx(product, rel=1e-5, abs=1e-5)


def test_tiny_weight_scales_are_quantized_anew() -> None:
    """Scales below FP16's normal numbers lose digits; new integers compensate."""
    rng = np.random.default_rng(2)
    scales = np.array([3.1e-6, 1.3e-7, 2e-9, 0.01], np.float32)
    integers = rng.integers(-127, 128, (4, 6)).astype(np.int8)
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 6] x) => (float[1, 4] y) {
            w = DequantizeLinear <axis = 0> (wq, ws, wz)
            y = Gemm <transB = 1> (x, w)
        }""",
        wq=integers,
        ws=scales,
        wz=np.zeros(4, np.int8),
    )
    half, kept = to_half(model, {})
    assert kept == ()
    (node,) = (n for n in half.graph if n.op_type == "DequantizeLinear")
    stored = node.inputs[0].const_value.numpy().astype(np.float64)
    new = node.inputs[1].const_value.numpy().astype(np.float64)
    assert (new > 0).all()
    error = np.abs(stored * new[:, None] - integers * scales[:, None].astype(np.float64))
    # Half a step of the new scale from rounding; if the new scale is smaller, also the clipping at 127 of its
    # steps: 127 times the rounding of the scale itself, at most half of FP16's smallest step.
    assert (error <= new[:, None] / 2 + 127 * np.abs(new - scales)[:, None]).all()
    assert (error[2] <= new[2]).all()  # a channel far below FP16 becomes zeros or one step


def test_summing_operators_stay_fp32_with_their_reason() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2, 300] x) => (float[2, 1] y) {
            squares = Pow(x, two)
            mean = ReduceMean(squares, axes)
            y = Sqrt(mean)
        }""",
        two=np.float32(2),
        axes=np.array([1], np.int64),
    )
    half, kept = to_half(model, {})
    assert {k.op_type for k in kept} == {"Pow", "ReduceMean"}
    x = np.full((2, 300), 400, np.float32)  # 400**2 is beyond FP16, the root of the mean is not
    assert _run(half, {"x": x})[0].tolist() == [[400.0], [400.0]]


def test_inputs_that_onnx_wants_in_fp32_stay_so() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) {
            r = Relu(x)
            y = Resize <mode = "nearest"> (r, , scales)
        }""",
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    half, kept = to_half(model, {})
    assert kept == ()
    assert _dtypes(half, "Resize") <= {HALF, FLOAT}
    assert half.graph.initializers["scales"].dtype == FLOAT
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(_run(half, {"x": x})[0], x.repeat(2, 2).repeat(2, 3))


def test_graphs_inside_nodes_read_fp32() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[3] x, bool c) => (float[3] y) {
            r = Relu(x)
            z = If (c) <then_branch = a () => (float[3] p) { p = Neg(r) },
                        else_branch = b () => (float[3] q) { q = Identity(r) }>
            y = Relu(z)
        }"""
    )
    half, kept = to_half(model, {})
    assert [(k.op_type, k.reason) for k in kept] == [("If", "it holds a graph of its own")]
    assert _dtypes(half, "Relu") == {HALF}
    x = np.array([-1, 0.5, 2], np.float32)
    assert _run(half, {"x": x, "c": np.array(False)})[0].tolist() == [0, 0.5, 2]
    assert _run(half, {"x": x, "c": np.array(True)})[0].tolist() == [0, 0, 0]


def test_casts_and_constants_take_part() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (int32[3] i, float[3] x) => (float[3] y, int64[1] n, bool[3] b) {
            f = Cast <to = 1> (i)
            k = Constant <value = float[3] {0.5, 1.5, 2.5}> ()
            s = Add(f, k)
            y = Mul(s, x)
            n = Shape(s)
            b = Greater(s, x)
        }"""
    )
    half, kept = to_half(model, {})
    assert kept == ()
    assert _dtypes(half, "Add") == {HALF}
    feeds = {"i": np.array([1, 2, 3], np.int32), "x": np.array([2, 4, 0.5], np.float32)}
    y, n, b = _run(half, feeds)
    assert (y.tolist(), n.tolist(), b.tolist()) == ([3, 14, 2.75], [3], [False, False, True])


def test_an_output_that_is_read_too_keeps_name_and_type() -> None:
    model = _model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[3] x) => (float[3] r, float[3] y) { r = Relu(x) y = Neg(r) }"""
    )
    half, _ = to_half(model, {})
    assert [(v.name, v.dtype) for v in half.graph.outputs] == [("r", FLOAT), ("y", FLOAT)]
    assert _dtypes(half, "Neg") == {HALF}
    r, y = _run(half, {"x": np.array([-1, 1, 2], np.float32)})
    assert (r.tolist(), y.tolist()) == ([0, 1, 2], [0, -1, -2])


def test_figures_of_fp16_round_behind_every_node() -> None:
    """ONNX Runtime passes FP32 from node to node, so FP16 types alone round constants only."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(16, 16)).astype(np.float32) / 4 for _ in range(6)]
    steps = "".join(
        f"m{i} = MatMul(t{i}, w{i})\nt{i + 1} = Tanh(m{i})\n" for i in range(len(weights))
    )
    model = _model(
        f"""<ir_version: 9, opset_import: ["" : 20]> net (float[8, 16] x) => (float[8, 16] y) {{
            t0 = Identity(x)
            {steps}
            y = Identity(t{len(weights)})
        }}""",
        **{f"w{i}": weight for i, weight in enumerate(weights)},
    )
    x = rng.normal(size=(8, 16)).astype(np.float32)

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16).astype(np.float64)

    expected = rounded(x)
    for weight in weights:
        expected = rounded(np.tanh(rounded(expected @ rounded(weight))))
    typed = to_half(model, {})[0]
    found = open_session(as_rounding_floats(typed), Execution.REFERENCE).run({"x": x})["y"]
    # FP32 and float64 sums can round differently; the next layers propagate one ulp of FP16
    near = np.abs(found - expected).max()
    as_typed = open_session(typed, Execution.REFERENCE).run({"x": x})["y"]
    assert near < np.abs(as_typed - expected).max() / 2
    assert np.mean(found == expected) > 0.9


def test_a_network_with_fp16_inputs_is_left_to_the_runtime() -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]>
        net (float16[4] x) => (float16[4] y) { y = Tanh(x) }"""
    model = _model(text)
    assert as_rounding_floats(model) is model


SUMMED = """<ir_version: 8, opset_import: ["" : 17]>
    net (float16[2, 8] x) => (float16[2, 4] y) {
        a = MatMul(x, w) m = ReduceMean <axes = [-1]> (a) d = Sub(a, m) e = Exp(d)
        wide = Cast <to = 1> (e) s = Sqrt(wide) p = Pow(s, two) n = Cast <to = 10> (p) y = MatMul(n, v) }"""


@pytest.mark.skipif(
    ort.__version__.startswith("1.23."), reason="ONNX Runtime 1.23 refuses a Cast that it inserts"
)
def test_what_was_fp16_keeps_its_types() -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: (rng.normal(size=shape) / 4).astype(np.float16)
        for name, shape in (("w", (8, 8)), ("v", (8, 4)))
    }
    model = _model(SUMMED, two=np.float32(2), **weights)
    half, kept = to_half(model, {})
    assert [one.op_type for one in kept] == ["Pow"]  # it was in FP32 before
    assert [value.dtype for value in (*half.graph.inputs, *half.graph.outputs)] == [HALF, HALF]
    assert _dtypes(half, "ReduceMean") == _dtypes(half, "Exp") == _dtypes(half, "Sqrt") == {HALF}
    feeds = {"x": rng.normal(size=(2, 8)).astype(np.float16)}
    (got,), (wanted,) = _run(half, feeds), _run(model, feeds)
    assert got.dtype == np.float16
    # Sqrt is now rounded to 2**-11 of its value, which Pow doubles; FP16 sums eight positive products
    np.testing.assert_allclose(got, wanted, atol=3 * 2**-11 * 8 * np.abs(wanted).max())


def test_pairs_in_fp16_keep_their_scales() -> None:
    model = _model(
        """<ir_version: 9, opset_import: ["" : 19]>
        net (float16[2, 8] x) => (float16[2, 8] y) {
            q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Exp(d) }""",
        s=np.float16(0.1),
        z=np.int8(0),
    )
    half, _ = to_half(model, {})
    assert _dtypes(half, "DequantizeLinear") == _dtypes(half, "Exp") == {HALF}
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 8)).astype(np.float16)}
    np.testing.assert_array_equal(_run(half, feeds)[0], _run(model, feeds)[0])


def test_a_cache_that_is_an_input_is_written_without_a_cast() -> None:
    model = _model(
        """<ir_version: 11, opset_import: ["" : 24]>
        net (float[1, 2, 8, 4] past, float[1, 2, 1, 4] x, int64[1] at) => (float[1, 2, 8, 4] y) {
            z = MatMul(x, w) y = TensorScatter(past, z, at) }""",
        w=np.eye(4, dtype=np.float32),
    )
    half, kept = to_half(model, {})
    assert [one.op_type for one in kept] == ["TensorScatter"]
    (scatter,) = (node for node in half.graph if node.op_type == "TensorScatter")
    assert scatter.inputs[0] in half.graph.inputs
    assert _dtypes(half, "MatMul") == {HALF}


def test_a_recurrent_layer_with_lengths_stays_fp32() -> None:
    weights = {
        name: np.ones(shape, np.float32)
        for name, shape in {"m": (3, 3), "w": (1, 8, 3), "r": (1, 8, 2)}.items()
    }
    text = """<ir_version: 8, opset_import: ["" : 17]>
        net (float[4, 1, 3] x, int32[1] lengths) => (float[4, 1, 1, 2] y) {
            a = MatMul(x, m) b = MatMul(a, m) t = Transpose <perm = [0, 1, 2]> (b)
            y = LSTM <hidden_size = 2> (t, w, r, , LENGTHS) }"""
    half, kept = to_half(_model(text.replace("LENGTHS", "lengths"), **weights), {})
    # no Cast stands between the layer and the producer of its sequence
    assert [one.op_type for one in kept] == ["LSTM", "Transpose", "MatMul"]
    assert [node.outputs[0].dtype for node in half.graph if node.op_type == "MatMul"] == [
        HALF,
        FLOAT,
    ]
    assert to_half(_model(text.replace("LENGTHS", ""), **weights), {})[1] == ()
