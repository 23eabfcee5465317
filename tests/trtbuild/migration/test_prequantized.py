"""Networks quantized by other tools, in Q/DQ or in operators on integers."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from tests.command import trtbuild
from trtbuild.errors import ModelError
from trtbuild.migration.prequantized import filled, take_in
from trtbuild.model import name_nodes, read_model, write_model

X = np.random.default_rng(1).standard_normal((24, 3, 12, 12)).astype(np.float32)


def float_network(path, opset=17):
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 5)}
    weights = {
        n: rng.standard_normal(s).astype(np.float32) * np.float32(0.3) for n, s in shapes.items()
    }
    weights |= {n: rng.standard_normal(8).astype(np.float32) for n in ("b1", "b2")}
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4, name="c1"),
        make("Relu", ["c1"], ["r1"], name="a1"),
        make("MaxPool", ["r1"], ["m1"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        make("Conv", ["m1", "w2", "b2"], ["c2"], pads=[1] * 4, name="c2"),
        make("Add", ["c2", "m1"], ["s"], name="sum"),
        make("GlobalAveragePool", ["s"], ["p"], name="gap"),
        make("Flatten", ["p"], ["f"], name="flat"),
        make("MatMul", ["f", "w3"], ["y"], name="fc"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [value("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, path)
    return path


class Reader(CalibrationDataReader):
    def __init__(self):
        self.rows = iter(X[:8])

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"x": row[None]}


def quantized(folder, form, activations=QuantType.QInt8, *, symmetric=True, per_channel=False):
    path = folder / "q.onnx"
    quantize_static(
        str(float_network(folder / "f.onnx")), str(path), Reader(), quant_format=form,
        activation_type=activations, weight_type=QuantType.QInt8, per_channel=per_channel,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )  # fmt: skip
    return path


def run(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(model), options).run(None, {"x": X})[0]


def build(capsys, model, folder, *more):
    np.savez(folder / "d.npz", x=X)
    options = ("--backend", "onnxruntime", "--no-latency", "--data", folder / "d.npz")
    return trtbuild(capsys, "engine", model, *options, "-o", folder / "out", *more)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8])
def test_qdq_of_other_tools_keeps_every_scale(tmp_path, capsys, activations, per_channel):
    model = quantized(tmp_path, QuantFormat.QDQ, activations, per_channel=per_channel)
    points = [i for i in onnx.load(model).graph.initializer if i.name.endswith("zero_point")]
    if any(i.data_type == TensorProto.UINT8 and 127 in numpy_helper.to_array(i) for i in points):
        pytest.skip("this ONNX Runtime writes uint8 around 127, which has no symmetric form")
    done = build(capsys, model, tmp_path, "--quantized")
    assert done.code == 0, done.err
    ours = onnx.load(tmp_path / "out" / "q.int8.onnx")
    zeros = {
        numpy_helper.to_array(i).dtype.name for i in ours.graph.initializer if "zero" in i.name
    }
    assert zeros == {"int8"}
    theirs = scales(onnx.load(model))
    assert scales(ours) <= theirs
    assert len(scales(ours)) >= 6
    np.testing.assert_allclose(run(tmp_path / "out" / "q.int8.onnx"), run(model), rtol=0, atol=1e-4)
    manifest = json.loads((tmp_path / "out" / "q.manifest.json").read_text())
    layers = {layer["node"]: layer for layer in manifest["layers"]}
    assert all(layers[name]["int8"] for name in ("c1", "c2", "fc"))
    assert manifest["calibration"] is None


def scales(proto):
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    used = [node.input[1] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    return {float(constants[name]) for name in used if constants[name].size == 1}


@pytest.mark.parametrize("per_channel", [False, True])
def test_operators_on_integers_become_pairs(tmp_path, capsys, per_channel):
    model = quantized(tmp_path, QuantFormat.QOperator, per_channel=per_channel)
    assert any(n.op_type == "QLinearConv" for n in onnx.load(model).graph.node)
    done = build(capsys, model, tmp_path, "--quantized", "--float-model", tmp_path / "f.onnx")
    assert done.code == 0, done.err
    ours = onnx.load(tmp_path / "out" / "q.int8.onnx")
    kinds = {node.op_type for node in ours.graph.node}
    assert not any(kind.startswith("QLinear") for kind in kinds)
    assert {"Conv", "MatMul", "Add", "MaxPool"} <= kinds
    # ONNX Runtime's integer kernels and float operators may round a tie differently: one step
    constants = {i.name: numpy_helper.to_array(i) for i in ours.graph.initializer}
    last = [n for n in ours.graph.node if n.op_type == "QuantizeLinear"][-1]
    step = float(constants[last.input[1]])
    assert np.abs(run(tmp_path / "out" / "q.int8.onnx") - run(model)).max() <= 2.01 * step
    manifest = json.loads((tmp_path / "out" / "q.manifest.json").read_text())
    (record,) = [stage for stage in manifest["stages"] if stage["stage"] == "take in"]
    assert "c1" in " ".join(record["details"]["rewritten"])
    assert record["details"]["float_model"] == "f"
    sqnr = manifest["verification"]["tensorrt_form"]["outputs"][0]["sqnr_db"]["value"]
    expected, found = run(tmp_path / "f.onnx"), run(tmp_path / "out" / "q.int8.onnx")
    ratio = 10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum())
    assert sqnr == pytest.approx(ratio, abs=3)


def test_asymmetric_scales_are_refused_by_name(tmp_path, capsys):
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        model = quantized(tmp_path, form, QuantType.QUInt8, symmetric=False)
        done = build(capsys, model, tmp_path, "--quantized")
        assert done.code == 2
        assert "zero point" in done.err
        assert "make_qdq_symmetric" in done.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_asymmetric_scales_are_widened_when_asked(tmp_path, capsys, form):
    model = quantized(tmp_path, form, QuantType.QUInt8, symmetric=False)
    done = build(capsys, model, tmp_path, "--quantized", "--enable", "make_qdq_symmetric")
    assert done.code == 0, done.err
    ours = onnx.load(tmp_path / "out" / "q.int8.onnx")
    pairs = [node for node in ours.graph.node if node.op_type == "QuantizeLinear"]
    constants = {i.name: numpy_helper.to_array(i) for i in ours.graph.initializer}
    assert pairs
    for node in pairs:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
    expected, found = run(tmp_path / "f.onnx"), run(tmp_path / "out" / "q.int8.onnx")
    assert 10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum()) > 25


def test_an_embedding_of_integers_becomes_floats(tmp_path):
    rng = np.random.default_rng(0)
    table = numpy_helper.from_array(rng.integers(-127, 128, (20, 8), np.int8), "table")
    weight = numpy_helper.from_array(rng.integers(-127, 128, (8, 4), np.int8), "w")
    scales = {"ts": 0.02, "ws": 0.01, "ys": 0.05}
    constants = [table, weight, numpy_helper.from_array(np.int8(0), "z")]
    constants += [numpy_helper.from_array(np.float32(v), n) for n, v in scales.items()]
    make, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        make("Gather", ["table", "ids"], ["words"], name="embed"),
        make("QLinearMatMul", ["words", "ts", "z", "w", "ws", "z", "ys", "z"], ["q"], name="mm"),
        make("DequantizeLinear", ["q", "ys", "z"], ["y"], name="dq"),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [value("ids", TensorProto.INT64, ["n", 5])],
        [value("y", TensorProto.FLOAT, ["n", 5, 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "e.onnx")
    found = take_in(read_model(tmp_path / "e.onnx"))
    assert found.gaps == ("mm",)
    ids = rng.integers(0, 20, (3, 5))
    words = numpy_helper.to_array(table).astype(np.float64)[ids] * scales["ts"]
    expected = words @ (numpy_helper.to_array(weight).astype(np.float64) * scales["ws"])
    write_model(found.float_model, tmp_path / "t.onnx")
    (given,) = ort.InferenceSession(str(tmp_path / "t.onnx")).run(None, {"ids": ids})
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


def test_scales_that_are_chosen_while_it_runs_are_refused_by_name(tmp_path, capsys):
    quantize_dynamic(str(float_network(tmp_path / "f.onnx")), str(tmp_path / "q.onnx"))
    done = build(capsys, tmp_path / "q.onnx", tmp_path, "--int8")
    assert done.code == 2
    assert "DynamicQuantizeLinear" in done.err or "Integer" in done.err


def with_gaps(folder):
    """The other tool's network, with the weight of c2 and the data of fc in float."""
    proto = onnx.load(quantized(folder, QuantFormat.QDQ))
    float_weights = {i.name: i for i in onnx.load(folder / "f.onnx").graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
    proto.graph.initializer.append(float_weights["w2"])
    nodes["c2"].input[1] = "w2"
    made = {out: node for node in proto.graph.node for out in node.output}
    nodes["fc"].input[0] = made[made[nodes["fc"].input[0]].input[0]].input[0]
    onnx.save(proto, folder / "gaps.onnx")
    return folder / "gaps.onnx"


def test_gaps_are_filled(tmp_path, capsys):
    model = with_gaps(tmp_path)
    found = take_in(read_model(model))
    assert set(found.gaps) == {"c2", "fc"}
    done = build(capsys, model, tmp_path, "--quantized", "--calibrator", "minmax")
    assert done.code == 0, done.err
    ours = onnx.load(tmp_path / "out" / "gaps.int8.onnx")
    made = {out: node for node in ours.graph.node for out in node.output}
    for name in ("c1", "c2", "fc"):
        node = next(one for one in ours.graph.node if one.name == name)
        assert [made[given].op_type for given in node.input[:2]] == ["DequantizeLinear"] * 2
    again = take_in(read_model(tmp_path / "out" / "gaps.int8.onnx"))
    assert not again.gaps


def test_a_scale_that_is_there_for_others_fills_a_gap_without_data(tmp_path):
    proto = onnx.load(quantized(tmp_path, QuantFormat.QDQ))
    nodes = {node.name: node for node in proto.graph.node}
    made = {out: node for node in proto.graph.node for out in node.output}
    assert nodes["c2"].input[0] in nodes["sum"].input  # both read m1 through one pair
    nodes["c2"].input[0] = made[made[nodes["c2"].input[0]].input[0]].input[0]
    onnx.save(proto, tmp_path / "one.onnx")
    found = take_in(read_model(tmp_path / "one.onnx"))
    assert (found.gaps, found.tensors) == (("c2",), ())
    write_model(filled(found, {}), tmp_path / "filled.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "filled.onnx"), run(tmp_path / "q.onnx"), rtol=0, atol=1e-4
    )


def test_a_dry_run_says_what_would_be_done(tmp_path, capsys):
    model = with_gaps(tmp_path)
    done = build(capsys, model, tmp_path, "--quantized", "--dry-run")
    assert done.code == 0, done.err
    assert "take in, fill gaps by calibration, build" in done.out
    assert "gaps.int8.onnx" in done.out
    assert "calibration.json" not in done.out


def test_our_own_form_comes_back_the_same(tmp_path, capsys):
    model = float_network(tmp_path / "f.onnx")
    assert build(capsys, model, tmp_path, "--int8").code == 0
    first = tmp_path / "out" / "f.int8.onnx"
    done = trtbuild(
        capsys, "engine", first, "--int8", "--backend", "onnxruntime", "--no-latency",
        "--data", tmp_path / "d.npz", "-o", tmp_path / "again",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "quantized already" in done.err
    np.testing.assert_array_equal(run(tmp_path / "again" / "f.int8.int8.onnx"), run(first))


def test_options_that_say_otherwise_are_refused(tmp_path, capsys):
    model = quantized(tmp_path, QuantFormat.QDQ)
    for more, said in (
        (("--quantized", "--float", "c1"), "--float has no"),
        (("--fp16",), "an engine in FP16 needs TensorRT"),
        (("--int8", "--weights-only"), "--weights-only is for float networks"),
        (("--int8", "--weights-only", "--dry-run"), "--weights-only is for float networks"),
    ):
        done = build(capsys, model, tmp_path, *more)
        assert done.code == 2
        assert said in done.err
    done = build(capsys, tmp_path / "f.onnx", tmp_path, "--quantized")
    assert done.code == 2
    assert "holds no Q/DQ" in done.err


def test_scales_along_another_axis_are_refused(tmp_path):
    proto = onnx.load(quantized(tmp_path, QuantFormat.QDQ, per_channel=True))
    made = {out: node for node in proto.graph.node for out in node.output}
    conv = next(node for node in proto.graph.node if node.name == "c2")
    axis = next(a for a in made[conv.input[1]].attribute if a.name == "axis")
    axis.i = 1
    onnx.save(proto, tmp_path / "axis.onnx")
    with pytest.raises(ModelError, match="along axis 1"):
        take_in(read_model(tmp_path / "axis.onnx"))


def test_a_pair_that_no_int8_layer_reads_needs_no_symmetric_form(tmp_path):
    # ONNX Runtime quantizes a Softmax's output in steps of 1/256 with another zero point
    proto = onnx.load(float_network(tmp_path / "plain.onnx"))
    proto.graph.node[-1].output[0] = "scores"
    proto.graph.node.append(helper.make_node("Softmax", ["scores"], ["y"], name="last"))
    onnx.save(proto, tmp_path / "f.onnx")
    quantize_static(
        str(tmp_path / "f.onnx"), str(tmp_path / "q.onnx"), Reader(), quant_format=QuantFormat.QOperator,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )  # fmt: skip
    found = take_in(read_model(tmp_path / "q.onnx"))
    assert len(found.left_out) == 1
    write_model(found.model, tmp_path / "t.onnx")
    # the omitted pair rounds to 1/256, and the integer kernel may be one of its own steps off
    assert np.abs(run(tmp_path / "t.onnx") - run(tmp_path / "q.onnx")).max() <= 2 / 256


def test_constants_that_are_no_weights_become_floats(tmp_path):
    proto = onnx.load(quantized(tmp_path, QuantFormat.QDQ))
    step = numpy_helper.from_array(np.float32(0.01), "shift_scale")
    shift = numpy_helper.from_array(np.arange(-4, 4, dtype=np.int8).reshape(1, 8, 1, 1), "shift")
    zero = numpy_helper.from_array(np.int8(0), "shift_zero")
    proto.graph.initializer.extend([step, shift, zero])
    first = next(node for node in proto.graph.node if node.name == "a1")
    add = helper.make_node("Add", [first.input[0], "shift_float"], ["shifted"], name="shift_add")
    dequantize = helper.make_node(
        "DequantizeLinear", ["shift", "shift_scale", "shift_zero"], ["shift_float"], name="shift_dq"
    )
    first.input[0] = "shifted"
    place = list(proto.graph.node).index(first)
    proto.graph.node.insert(place, add)
    proto.graph.node.insert(0, dequantize)
    onnx.save(proto, tmp_path / "shift.onnx")
    found = take_in(read_model(tmp_path / "shift.onnx"))
    node = next(one for one in found.model.graph if one.name == "shift_add")
    assert node.inputs[1].is_initializer()  # TensorRT accepts integer constants only as weights
    write_model(found.model, tmp_path / "t.onnx")
    np.testing.assert_array_equal(run(tmp_path / "t.onnx"), run(tmp_path / "shift.onnx"))


def test_what_qat_leaves_behind_a_convolution_goes_into_its_scales():
    """PyTorch's ConvBn modules: the weight is scaled before rounding, and a Div undoes the scaling."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17]> net (float[1, 3, 6, 6] x) => (float[1, 4, 6, 6] y)
        <float xs = {0.02}, int8 z = {0}, float ws = {0.01}> {
            xq = QuantizeLinear(x, xs, z)
            xd = DequantizeLinear(xq, xs, z)
            wq = QuantizeLinear(w, ws, z)
            wd = DequantizeLinear(wq, ws, z)
            c = Conv <pads = [1, 1, 1, 1]> (xd, wd)
            d = Div(c, factor)
            a = Add(d, bias)
            y = BatchNormalization(a, gamma, beta, mean, variance)
        }"""
    )
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(size=(4, 3, 3, 3)) * 0.4,
        # one factor is negative, which negates its integers
        "factor": np.array([0.5, 2.0, -1.5, 1.0]).reshape(1, 4, 1, 1),
        "bias": rng.normal(size=(1, 4, 1, 1)),
        **{name: rng.normal(size=4) for name in ("gamma", "beta", "mean")},
        "variance": rng.uniform(0.5, 2, size=4),
    }
    for name, array in arrays.items():
        tensor = numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    given = ir.from_proto(model)
    name_nodes(given)
    taken = take_in(given)
    assert [node.op_type for node in taken.float_model.graph] == ["Conv"]
    layer = next(node for node in taken.model.graph if node.op_type == "Conv")
    integers = layer.inputs[1].producer().inputs[0].const_value.numpy()
    expected = np.clip(np.rint(arrays["w"].astype(np.float32) / np.float32(0.01)), -128, 127)
    np.testing.assert_array_equal(np.abs(integers), np.abs(expected))
    x = rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
    before, after = (
        ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
        for proto in (model, ir.to_proto(taken.model))
    )
    # the factors are rounded to FP32 once per channel, and both networks sum 27 products
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
