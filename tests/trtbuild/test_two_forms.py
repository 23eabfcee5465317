"""Networks and data on which one scale, range or bias would spoil an engine: both forms stay accurate."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.command import trtbuild
from tests.networks.network import from_text
from trtbuild.quantization import QuantParams, unsigned
from trtbuild.result import EngineResult
from trtbuild.titles import ENGINE, TENSORRT_FORM

COUNT = 48
# Both forms round to 8 bits; the engine may lose one bit relative to the other form: 6 dB.
GAP_DB = 6.0
# Below it, the loss is more than rounding to 8 bits explains (3 % relative error).
GOOD_DB = 30.0


class Bench:
    """A network, its data, and the results of a build."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys

    def build(self, proto, *options, **arrays):
        (self.folder / "net.onnx").write_bytes(proto.SerializeToString())
        np.savez(self.folder / "net.npz", **arrays)
        # one rule, so that the two forms differ only by their Q/DQ
        if "--calibrator" not in options:
            options = ("--calibrator", "entropy", *options)
        done = trtbuild(
            *(self.capsys, "engine", self.folder / "net.onnx", "--int8", "--no-latency", "--quiet"),
            *("--data", self.folder / "net.npz", "--backend", "onnxruntime"),
            *("-o", self.folder / "out", *options),
        )
        assert done.code == 0, done.err
        out = self.folder / "out"
        manifest = json.loads((out / "net.manifest.json").read_text())
        figures = {
            form: min(float(output["sqnr_db"]["value"]) for output in found["outputs"])
            for form, found in manifest["verification"].items()
        }
        return SimpleNamespace(
            manifest=manifest,
            err=done.err,
            form_db=figures["tensorrt_form"],
            engine_db=figures["engine"],
            int8=onnx.load(out / "net.int8.onnx"),
            portable=onnx.load(out / "net.onnxruntime.onnx"),
        )


@pytest.fixture
def bench(tmp_path, capsys):
    return Bench(tmp_path, capsys)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def with_weight(proto, name, values):
    """The network with these values in an initializer."""
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
            return proto
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)
    )
    return proto


def int8_nodes(built):
    return {layer["node"] for layer in built.manifest["layers"] if layer["int8"]}


def reasons(built):
    return {layer["node"]: layer["reason"] for layer in built.manifest["layers"]}


def dead_tensors(built):
    stages = [stage for stage in built.manifest["stages"] if stage["stage"] == "quantize"]
    return stages[-1]["details"]["without_range"]


def made_by(proto, node, index=0):
    """The operator that produces an input of the node with this name."""
    makers = {name: one.op_type for one in proto.graph.node for name in one.output}
    reader = next(one for one in proto.graph.node if one.name == node)
    return makers.get(reader.input[index])


# Tensors without a range


@pytest.mark.parametrize(
    ("form", "engine", "is_told"),
    [(36.0, 29.9, True), (35.8, 29.9, False), (40.0, 30.0, False)],
)
def test_an_engine_is_below_its_form_by_a_bit_and_where_int8_is_usually_better(
    form: float, engine: float, is_told: bool
) -> None:
    """6 dB, and 30 dB."""

    def figures(sqnr_db: float) -> Any:
        found = SimpleNamespace(name="y", judged_sqnr_db=SimpleNamespace(value=sqnr_db))
        return SimpleNamespace(outputs=(found,))

    given: Any = SimpleNamespace(
        comparisons={TENSORRT_FORM: figures(form), ENGINE: figures(engine)}
    )
    found = vars(EngineResult)["below_tensorrt_form"].fget(given)
    assert len(found) == is_told


def test_several_dead_tensors_leave_the_rest_in_int8(bench):
    proto = from_text(
        """g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y, float[N, 4, 8, 8] z) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w0)  ra = Relu (a)  b = Conv (ra, w1)
          c = Conv <pads = [1, 1, 1, 1]> (x, w2)  rc = Relu (c)  y = Conv (rc, w3)
          m = Abs (c)  n = Neg (m)  r = Relu (n)  d = Conv (r, w4)  z = Add (b, d) }""",
        {"w0": (4, 3, 3, 3), "w1": (4, 4, 1, 1), "w2": (4, 3, 3, 3), "w3": (4, 4, 1, 1), "w4": (4, 4, 1, 1)},
    )  # fmt: skip
    with_weight(proto, "w0", np.zeros((4, 3, 3, 3)))
    built = bench.build(proto, x=random(COUNT, 3, 8, 8))
    assert dead_tensors(built).keys() >= {"ra", "r"}
    assert int8_nodes(built) >= {"Conv_a", "Conv_c", "Conv_y"}
    assert not int8_nodes(built) & {"Conv_b", "Conv_d"}
    assert reasons(built)["Conv_b"] == "the tensor 'ra' was zero in every sample"
    assert "'ra' was zero in every sample; 'Conv_b' stays in float for it" in built.err


def test_a_dead_input_beside_a_live_one(bench):
    proto = from_text(
        """g (float[N, 8] x, float[N, 8] u) => (float[N, 4] y) {
          a = MatMul (x, w0)  b = MatMul (u, w1)  c = Add (a, b)  r = Relu (c)  y = MatMul (r, w2) }""",
        {"w0": (8, 8), "w1": (8, 8), "w2": (8, 4)},
    )
    built = bench.build(proto, x=random(COUNT, 8), u=np.zeros((COUNT, 8), np.float32))
    assert reasons(built)["MatMul_b"] == "the tensor 'u' was zero in every sample"
    assert int8_nodes(built) >= {"MatMul_a", "MatMul_y"}
    assert built.engine_db > built.form_db - GAP_DB


def test_a_head_that_is_never_used(bench):
    proto = from_text(
        """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
          a = MatMul (x, w0)  r = Relu (a)  y = MatMul (r, w1)
          m = Abs (a)  n = Neg (m)  h = Relu (n)  z = MatMul (h, w2) }""",
        {"w0": (8, 8), "w1": (8, 4), "w2": (8, 4)},
    )
    built = bench.build(proto, x=random(COUNT, 8))
    assert "MatMul_y" in int8_nodes(built)
    assert "MatMul_z" not in int8_nodes(built)


def test_a_recurrence_that_was_unrolled_and_begins_with_zeros(bench):
    steps = "".join(
        f"a{i} = MatMul (x, wx)  b{i} = MatMul (h{i}, wh)  c{i} = Add (a{i}, b{i})  h{i + 1} = Tanh (c{i})\n"
        for i in range(3)
    )
    proto = from_text(
        f"g (float[N, 8] x, float[N, 8] h0) => (float[N, 8] h3) {{ {steps} }}",
        {"wx": (8, 8), "wh": (8, 8)},
    )
    built = bench.build(proto, x=random(COUNT, 8), h0=np.zeros((COUNT, 8), np.float32))
    assert list(dead_tensors(built)) == ["h0"]
    assert int8_nodes(built) >= {"MatMul_b1", "MatMul_b2"}
    assert "MatMul_b0" not in int8_nodes(built)


def test_a_tensor_that_held_nothing(bench):
    proto = from_text(
        """g (float[N, 4, 8] x) => (float[N, 4, 8] y, float[N, 0, 4] z) {
          a = MatMul (x, w0)  r = Relu (a)  y = MatMul (r, w0)
          e = Slice (r, from, to, axis)  t = Tanh (e)  z = MatMul (t, w1) }""",
        {"w0": (8, 8), "w1": (8, 4)},
    )
    for name, value in {"from": 2, "to": 2, "axis": 1}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    built = bench.build(proto, x=random(COUNT, 4, 8))
    assert int8_nodes(built) >= {"MatMul_a", "MatMul_y"}
    assert "MatMul_z" not in int8_nodes(built)


# Masks


@pytest.mark.parametrize("hidden", [-np.inf, -1e9, -1e4])
@pytest.mark.parametrize(
    "mask",
    [
        "m = Where (k, hide, zero)",
        "f = Cast <to = 1> (k)  m = Mul (f, big)",
        "f = Cast <to = 1> (k)  g1 = Sub (one, f)  g2 = Sub (one, g1)  m = Mul (g2, big)",
        "w = Where (k, hide, zero)  u = Unsqueeze (w, ax)  m = Squeeze (u, ax)",
    ],
)
def test_a_mask_in_front_of_softmax(bench, hidden, mask):
    if hidden == -np.inf and "Mul" in mask:
        pytest.skip("0 times infinity is NaN")
    proto = from_text(
        f"""g (float[N, 8] x, bool[N, 6] k) => (float[N, 4] y) {{
          a = MatMul (x, w0)  {mask}  p = MatMul (x, w1)  b = Add (m, p)  s = Add (a, b)
          q = Softmax <axis = -1> (s)  y = MatMul (q, w2) }}""",
        {"w0": (8, 6), "w1": (8, 6), "w2": (6, 4)},
    )
    for name, value in {"hide": hidden, "zero": 0, "big": max(hidden, -1e9), "one": 1}.items():
        with_weight(proto, name, value)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "ax"))
    keys = np.random.default_rng(1).random((COUNT, 6)) < 0.3
    keys[:, 0] = False
    built = bench.build(proto, x=random(COUNT, 8), k=keys)
    assert not int8_nodes(built) & {"Add_b", "Add_s"}
    assert int8_nodes(built) >= {"MatMul_a", "MatMul_p", "MatMul_y"}
    assert min(built.form_db, built.engine_db) > GOOD_DB


@pytest.mark.parametrize("hidden", [-1e9, -np.inf])
def test_a_mask_that_is_an_input_on_scores_of_convolutions(bench, hidden):
    proto = from_text(
        """g (float[N, 4, 6, 6] x, float[N, 1, 6, 6] mask) => (float[N, 4, 6, 6] y) {
          a = Conv (x, w0)  s = Add (a, mask)  q = Softmax <axis = -1> (s)  y = Conv (q, w1) }""",
        {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1)},
    )
    mask = np.where(random(COUNT, 1, 6, 6) > 1, hidden, 0).astype(np.float32)
    mask[..., 0] = 0
    arrays = {"x": random(COUNT, 4, 6, 6), "mask": mask}
    built = bench.build(proto, **arrays)
    assert "may be a mask" in reasons(built)["Add_s"]
    assert min(built.form_db, built.engine_db) > GOOD_DB
    # a node that is in float anyway can still be named
    assert bench.build(proto, "--float", "Add", **arrays).form_db == built.form_db


# Residual streams


@pytest.mark.parametrize("layer", ["MatMul", "Gemm"])
def test_a_residual_stream_behind_a_product_is_not_rounded(bench, layer):
    proto = from_text(
        f"""g (float[N, 32] x) => (float[N, 8] y) {{
          n0 = LayerNormalization (x, s, t)  a = {layer} (n0, w0)  r = Relu (a)  b = {layer} (r, w1)
          z = Add (b, x)  n1 = LayerNormalization (z, s, t)  y = {layer} (n1, w2) }}""",
        {"s": (32,), "t": (32,), "w0": (32, 32), "w1": (32, 32), "w2": (32, 8)},
    )
    with_weight(proto, "s", np.r_[0.01, np.ones(31)])
    data = random(COUNT, 32)
    data[:, 0] += 500
    built = bench.build(proto, x=data)
    assert made_by(built.int8, "Add_z", 1) is None
    assert made_by(built.portable, "Add_z", 1) is None
    assert "residual stream" in reasons(built)["Add_z"]
    assert min(built.form_db, built.engine_db) > GOOD_DB


def test_a_residual_behind_a_convolution_still_is(bench):
    proto = from_text(
        """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
          a = Conv (x, w0)  z = Add (a, x)  r = Relu (z)  y = Conv (r, w1) }""",
        {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1)},
    )
    built = bench.build(proto, x=random(COUNT, 4, 6, 6))
    assert made_by(built.int8, "Add_z", 1) == "DequantizeLinear"


# The runtime's form


@pytest.mark.parametrize("factor", [1.0, 1e-2, 1e-4, 1e-6, 1e-10, 0.0])
@pytest.mark.parametrize("bias", [1e-3, 1.0, 1e4])
def test_a_bias_that_does_not_fit_beside_its_weights(bench, factor, bias):
    proto = from_text(
        """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)  r = Relu (a)  p = GlobalAveragePool (r)
          f = Flatten (p)  y = Gemm (f, w1) }""",
        {"w0": (4, 3, 3, 3), "w1": (4, 4)},
    )
    weight = random(4, 3, 3, 3, seed=3)
    weight[0] *= factor
    with_weight(with_weight(proto, "w0", weight), "b0", [bias, 0, 0, -bias])
    built = bench.build(proto, x=10 * random(COUNT, 3, 8, 8))
    assert built.engine_db > built.form_db - GAP_DB


def test_layers_that_share_a_weight_and_have_unlike_biases(bench):
    proto = from_text(
        """g (float[N, 8] x) => (float[N, 8] y, float[N, 8] z) {
          y = Gemm (x, w, b)  r = Relu (y)  z = Gemm (r, w, c) }""",
        {"w": (8, 8)},
    )
    with_weight(
        with_weight(with_weight(proto, "w", 1e-9 * random(8, 8)), "b", 2 * np.ones(8)),
        "c",
        np.zeros(8),
    )
    built = bench.build(proto, x=random(COUNT, 8))
    assert built.engine_db > built.form_db - GAP_DB


@pytest.mark.parametrize(
    "tail", ["y = Mul (c, c)", "d = Mul (c, c)  y = Mul (d, c)", "s = Sigmoid (c)  y = Mul (s, c)"]
)
def test_what_leaves_the_network_is_not_clipped(bench, tail):
    proto = from_text(
        f"""g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] c, float[N, 4, 8, 8] y) {{
          a = Conv (x, w0)  r = Relu (a)  c = Conv (r, w1)  {tail} }}""",
        {"w0": (8, 3, 1, 1), "w1": (4, 8, 1, 1)},
    )
    # heavy tails, whose ends the entropy rule clips
    data = random(COUNT, 3, 8, 8) ** 3
    built = bench.build(proto, "--calibrator", "percentile", "--percentile", 99, x=data)
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in built.portable.graph.initializer}
    chosen = built.manifest["calibration"]["amax"]["c"]
    assert scales["c_scale"] * 255 > 1.5 * chosen  # both signs: not cut off at 99 %


def test_a_small_part_of_a_concat_keeps_its_bits(bench):
    proto = from_text(
        """g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
          a = Conv (x, w0)  b = Conv (x, w1)  j = Concat <axis = 1> (a, b)
          s = Sigmoid (j)  t = Mul (j, s)  y = Conv (t, w2) }""",
        {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1), "w2": (4, 8, 1, 1)},
    )
    with_weight(proto, "w0", 0.02 * random(4, 4, 1, 1, seed=4))
    with_weight(
        proto, "w2", random(4, 8, 1, 1, seed=5) * np.r_[[200.0] * 4, [0.02] * 4][:, None, None]
    )
    built = bench.build(proto, x=random(COUNT, 4, 8, 8))
    groups = {group["name"]: group for group in built.manifest["groups"]}
    assert not groups["Concat_j"]["int8"]
    assert "of its 8 bits" in groups["Concat_j"]["reason"]
    assert built.engine_db > built.form_db - GAP_DB


def test_parts_of_like_ranges_stay_in_integers(bench):
    proto = from_text(
        """g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
          a = Conv (x, w0)  b = Conv (x, w0)  j = Concat <axis = 1> (a, x)
          s = Sigmoid (j)  t = Mul (j, s)  y = Conv (t, w2) }""",
        {"w0": (4, 4, 1, 1), "w2": (4, 8, 1, 1)},
    )
    with_weight(proto, "w0", np.eye(4)[:, :, None, None])
    built = bench.build(proto, x=random(COUNT, 4, 8, 8))
    groups = {group["name"]: group for group in built.manifest["groups"]}
    assert groups["Concat_j"]["int8"]


def test_a_layer_in_float_reads_floats_in_both_forms(bench):
    proto = from_text(
        """g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y, float[N, 4, 8, 8] z) {
          a = Conv (x, w0)  r = Relu (a)  y = Conv (r, w1)  z = Conv (r, w2) }""",
        {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1)},
    )
    built = bench.build(proto, "--float", "Conv_z", x=random(COUNT, 4, 8, 8))
    for written in (built.int8, built.portable):
        assert made_by(written, "Conv_y") == "DequantizeLinear"
        assert made_by(written, "Conv_z") == "Relu"


def test_an_engine_far_below_tensorrts_form_is_said(bench, monkeypatch):
    def coarse(given):
        params = unsigned(given)
        return QuantParams(params.scale * np.float32(16), params.zero_point // 16, params.dtype)

    monkeypatch.setattr("trtbuild.quantization.stage.unsigned", coarse)
    proto = from_text(
        "g (float[N, 8] x) => (float[N, 4] y) { a = MatMul (x, w0)  r = Relu (a)  y = MatMul (r, w1) }",
        {"w0": (8, 8), "w1": (8, 4)},
    )
    built = bench.build(proto, "--report", bench.folder / "report.html", x=random(COUNT, 8))
    (gap,) = built.manifest["below_tensorrt_form"]
    assert gap["output"] == "y"
    assert gap["tensorrt_form_db"] - gap["engine_db"] >= GAP_DB
    assert "'y' is far below TensorRT" in built.err
    assert "is far below TensorRT" in (bench.folder / "report.html").read_text()


# What is not looked into


def test_layers_in_a_body_are_named(tmp_path, capsys):
    proto = from_text(
        """g (float[N, 8] x, bool k) => (float[N, 4] y) {
          y = If (k) <then_branch = t () => (float[N, 4] u) { u = MatMul (x, w) },
                      else_branch = e () => (float[N, 4] v) { v = MatMul (x, w) }> }""",
        {"w": (8, 4)},
    )
    model, data = tmp_path / "net.onnx", tmp_path / "net.npz"
    model.write_bytes(proto.SerializeToString())
    np.savez(data, x=random(COUNT, 8), k=np.ones(COUNT, bool))
    done = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", tmp_path / "out", "--quiet")
    )
    assert "lie in the body of If" in done.sentence
