"""Networks with plugins are cut in front of them, and joined again for TensorRT."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from tests.command import FAST, trtbuild
from tests.networks import plugins

X = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)
DATA = {
    plugins.DETECTOR: {"x": X, "sizes": np.ones((24, 2), np.float32)},
    plugins.SPLIT: {"x": X},
    plugins.NESTED: {"x": X, "yes": np.ones(24, bool)},
}
PLUGINS = {plugins.DETECTOR: "Decode", plugins.SPLIT: "WarpByFlow", plugins.NESTED: "If"}


def saved(folder, text):
    np.savez(folder / "data.npz", **DATA[text])
    proto = plugins.network(text)
    onnx.save(proto, folder / "net.onnx")
    return proto


def build(capsys, folder, text, *options):
    proto = saved(folder, text)
    what = ("--int8", "--backend", "onnxruntime", "--no-latency", "--data", folder / "data.npz")
    done = trtbuild(
        capsys, "engine", folder / "net.onnx", *what, *FAST, "-o", folder / "out", *options
    )
    return proto, done


def node_of(proto, op_type):
    return next(node for node in proto.graph.node if node.op_type == op_type)


def operators(proto):
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("text", [plugins.DETECTOR, plugins.SPLIT])
def test_the_plugin_is_in_tensorrts_form_as_it_was(tmp_path, capsys, text):
    proto, done = build(capsys, tmp_path, text)
    assert done.code == 0, done.err
    whole = onnx.load(tmp_path / "out" / "net.int8.onnx")
    before, after = (node_of(one, PLUGINS[text]) for one in (proto, whole))
    assert (after.domain, after.name, after.op_type) == (before.domain, before.name, before.op_type)
    assert list(after.output) == list(before.output)
    assert sorted(map(str, after.attribute)) == sorted(map(str, before.attribute))
    for found, given in (
        (whole.graph.input, proto.graph.input),
        (whole.graph.output, proto.graph.output),
    ):
        weights = {one.name for one in proto.graph.initializer}
        assert [v.name for v in found] == [v.name for v in given if v.name not in weights]
    imports = {one.domain: one.version for one in whole.opset_import}
    wanted = {one.domain: one.version for one in proto.opset_import if one.domain}
    assert wanted.items() <= imports.items()
    assert "QuantizeLinear" in operators(whole)
    known = {v.name for v in whole.graph.input} | {i.name for i in whole.graph.initializer}
    for node in whole.graph.node:
        assert set(node.input) <= known, node
        assert not set(node.output) & known
        known |= set(node.output)


def test_the_engine_is_the_part_in_front_and_says_so(tmp_path, capsys):
    _, done = build(capsys, tmp_path, plugins.DETECTOR)
    assert "ONNX Runtime cannot run acme.plugins:Decode 'decode_kept'" in done.err
    assert "'boxes'" in done.err
    manifest = json.loads((tmp_path / "out" / "net.manifest.json").read_text())
    assert "in front of acme.plugins:Decode" in manifest["files"]["net.onnxruntime.onnx"]["what"]
    (record,) = [stage for stage in manifest["stages"] if stage["stage"] == "cut"]
    assert record["details"] == {
        "operators": [{"op_type": "Decode", "domain": "acme.plugins", "node": "decode_kept"}],
        "tensors": ["boxes"],
        "outputs": ["count", "found"],
        "nodes_behind": ["decode_kept", "cast_count"],
    }
    for form in ("tensorrt_form", "engine"):
        assert [one["name"] for one in manifest["verification"][form]["outputs"]] == ["boxes"]


def test_layers_behind_stay_float_and_outputs_in_front_are_compared(tmp_path, capsys):
    _, done = build(capsys, tmp_path, plugins.SPLIT)
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "out" / "net.manifest.json").read_text())
    layers = {layer["node"]: layer for layer in manifest["layers"]}
    assert layers["conv_c2"]["int8"]
    assert not layers["conv_y"]["int8"]
    assert layers["conv_y"]["reason"].startswith("it comes after WarpByFlow 'warpbyflow_warped'")
    outputs = [one["name"] for one in manifest["verification"]["engine"]["outputs"]]
    assert outputs == ["early", "c2"]


def test_a_plugin_in_a_body_takes_its_if_with_it(tmp_path, capsys):
    _, done = build(capsys, tmp_path, plugins.NESTED)
    assert done.code == 0, done.err
    assert "acme:Sharpen" in done.err
    whole = onnx.load(tmp_path / "out" / "net.int8.onnx")
    branch = node_of(whole, "If").attribute[0].g
    made = {name for node in whole.graph.node for name in node.output}
    assert branch.node[0].domain == "acme"
    assert set(branch.node[0].input) <= made


def test_the_other_commands_take_such_a_network(tmp_path, capsys):
    saved(tmp_path, plugins.SPLIT)
    net, data, ranges = tmp_path / "net.onnx", tmp_path / "data.npz", tmp_path / "ranges.json"
    steps = (
        ("optimize", net, tmp_path / "small.onnx"),
        ("calibrate", net, "--data", data, "-o", ranges),
        ("quantize", net, "--calibration", ranges, "-o", tmp_path / "q.onnx"),
        ("verify", net, tmp_path / "q.onnx", "--data", data),
    )
    for step in steps:
        done = trtbuild(capsys, *step)
        assert done.code == 0, (step, done.err)
    for name in ("small.onnx", "q.onnx"):
        assert "WarpByFlow" in operators(onnx.load(tmp_path / name))
    assert (
        trtbuild(
            capsys, "verify", tmp_path / "small.onnx", tmp_path / "q.onnx", "--data", data
        ).code
        == 0
    )


def test_what_cannot_be_cut_is_refused_by_name(tmp_path, capsys):
    proto = plugins.network(plugins.SPLIT)
    node = proto.graph.node.add(
        op_type="Undistort", domain="cam", name="lens", input=["x"], output=["flat"]
    )
    proto.opset_import.append(onnx.helper.make_opsetid("cam", 1))
    proto.graph.node[0].input[0] = "flat"
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=X)
    done = trtbuild(
        *(capsys, "engine", tmp_path / "net.onnx", "--int8", "--data", tmp_path / "data.npz"),
        *("-o", tmp_path / "out"),
    )
    assert done.code == 2
    assert f"{node.domain}:{node.op_type} '{node.name}'" in done.err
    assert "no layer with weights comes before" in done.err


def test_operators_of_onnx_runtime_get_a_warning_for_tensorrt(tmp_path, capsys):
    text = plugins.SPLIT.replace("WarpByFlow(c2)", "com.microsoft.QuickGelu(c2)")
    proto = plugins.network(text.replace('"" : 11', '"" : 17, "com.microsoft" : 1'))
    onnx.save(proto, tmp_path / "net.onnx")
    done = trtbuild(capsys, "optimize", tmp_path / "net.onnx", tmp_path / "small.onnx")
    assert done.code == 0
    assert "com.microsoft:QuickGelu 'quickgelu_warped'" in done.err
    assert "TensorRT needs a plugin" in done.err


def test_no_int8_because_all_layers_lie_in_a_body(tmp_path, capsys):
    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        net (float[N, 3, 8, 8] x, bool yes) => (y) <float[8, 3, 3, 3] w1> {
            y = If (yes) <
                then_branch = yes () => (a) { a = Conv(x, w1) },
                else_branch = no () => (b) { c = Conv(x, w1) b = Relu(c) }
            >
        }
    """
    onnx.save(plugins.network(text), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=X, yes=np.ones(24, bool))
    done = trtbuild(
        *(capsys, "engine", tmp_path / "net.onnx", "--int8", "--data", tmp_path / "data.npz"),
        *("-o", tmp_path / "out"),
    )
    assert done.code == 2
    assert "its layers with weights lie in the body of If 'if_y'" in done.err


def test_a_mistyped_operator_is_an_error_that_names_the_right_one(tmp_path, capsys):
    proto = plugins.network(plugins.SPLIT)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Rellu"
    onnx.save(proto, tmp_path / "net.onnx")
    done = trtbuild(capsys, "calibrate", tmp_path / "net.onnx", "-o", tmp_path / "r.json")
    assert done.code == 2
    assert "ONNX has no operator 'Rellu'" in done.err
    assert "'Relu' may be meant" in done.err


def test_bench_of_a_network_with_a_plugin_says_so_in_one_sentence(tmp_path, capsys):
    proto = saved(tmp_path, plugins.SPLIT)
    done = trtbuild(capsys, "bench", tmp_path / "net.onnx", "--data", tmp_path / "data.npz")
    assert done.code == 2
    assert f"it holds {node_of(proto, 'WarpByFlow').op_type}" in done.err
    assert "needs a plugin" in done.err
    assert len(done.err.strip().splitlines()) == 1
