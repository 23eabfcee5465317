"""Two engines side by side: each change is found on its node, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.command import FAST, trtbuild
from tests.json_documents import valid
from tests.trtbuild.verification.small_network import (
    calibrated,
    float_network,
    images,
    quantized,
    spoil_weight_scale,
)
from trtbuild.json_codec import encode
from trtbuild.latency.measure import MONOTONIC, Samples
from trtbuild.latency.regress import decide
from trtbuild.latency.stats import summarize
from trtbuild.model import write_model
from trtbuild.plan import PlacementRequest
from trtbuild.quantization import insert_qdq, portable_form
from trtbuild.titles import ENGINE, FLOAT
from trtbuild.verification.intervals import Estimate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    write_model(quantized().quantized, tmp_path / "a.int8.onnx")
    return tmp_path / "a.int8.onnx"


def written(model: ir.Model, path: Path) -> Path:
    write_model(model, path)
    return path


def diff(capsys, first: Path, second: Path, *options: object) -> dict:
    outcome = trtbuild(capsys, "diff", first, second, "--json", *options)
    found = outcome.json
    alone = found["only_first"] or found["only_second"]
    changed = any(node["changes"] for node in found["nodes"]) or found["ranges"]
    assert outcome.code == bool(alone or changed)
    assert found["equal"] is not bool(outcome.code)
    return found


def changes(found: dict) -> dict[str, list[str]]:
    return {n["name"]: [c["what"] for c in n["changes"]] for n in found["nodes"] if n["changes"]}


def test_a_network_is_the_same_as_itself(network, capsys) -> None:
    found = diff(capsys, network, network)
    assert changes(found) == {}
    assert len(found["nodes"]) == len(float_network().graph)
    assert found["first"]["network"] == "a.int8.onnx"


def test_a_range_is_told_where_it_is_read_and_by_how_much(network, tmp_path, capsys) -> None:
    artifact = calibrated()
    assert artifact.calibration is not None
    ranges = dict(artifact.calibration.ranges)
    amax = ranges["a1"].amax
    ranges["a1"] = replace(ranges["a1"], amax=2 * amax)
    wider = replace(artifact.calibration, ranges=ranges)
    other = insert_qdq(artifact.with_calibration(wider)).quantized
    found = diff(capsys, network, written(other, tmp_path / "b.onnx"))
    assert changes(found) == {"Conv_a2": ["range"]}
    (change,) = next(node["changes"] for node in found["nodes"] if node["changes"])
    assert (change["of"], change["ratio"]) == ("a1", pytest.approx(2, rel=1e-6))
    assert float(change["first"]) == pytest.approx(amax, rel=1e-5)
    assert changes(diff(capsys, network, tmp_path / "b.onnx", "--tolerance", 0.6)) == {}
    assert changes(diff(capsys, network, tmp_path / "b.onnx", "--tolerance", "60%")) == {}
    percent = trtbuild(capsys, "diff", network, network, "--tolerance", 1)
    assert "--tolerance is 0 to 0.99, not 1; write 1 percent as 1%" in percent.sentence


def test_ranges_that_look_alike_are_told_apart(network, tmp_path, capsys) -> None:
    artifact = calibrated()
    assert artifact.calibration is not None
    ranges = dict(artifact.calibration.ranges)
    ranges["a1"] = replace(ranges["a1"], amax=ranges["a1"].amax * (1 + 2e-7))
    nearly = replace(artifact.calibration, ranges=ranges)
    write_model(
        insert_qdq(artifact.with_calibration(nearly)).quantized, second := tmp_path / "b.onnx"
    )
    (change,) = diff(capsys, network, second)["nodes"][4]["changes"]
    assert change["first"] == change["second"]
    told = trtbuild(capsys, "diff", network, second).out
    assert f"range of a1: {change['first']} in both, but differs by rounding" in told
    assert re.search(r"see --tolerance \(by \+[12]\.\de-07\)", told)  # a bit of float32 is 1.2e-07
    portable = portable_form(quantized())
    write_model(portable, second)
    first, other = next(
        (c["first"], c["second"])
        for node in diff(capsys, network, second)["nodes"]
        for c in node["changes"]
        if c["of"] == "a1"
    )
    assert (first.split()[-1], other.split(",")[0].split()[-1]) == ("INT8", "UINT8")


CONV = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 8, 8] x) => (float[N, 2, H, W] y)
<float[2, 2, 3, 3] w = {{{weight}}}>
{{ c = Conv {conv} (x, w) p = MaxPool <kernel_shape = [2, 2] {pool}> (c) y = LeakyRelu {relu} (p) }}
"""


def conv(path: Path, conv: str = "", pool: str = "", relu: str = "") -> Path:
    text = CONV.format(weight=", ".join(map(str, range(36))), conv=conv, pool=pool, relu=relu)
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize(
    ("written", "equal"),
    [
        ({"conv": "<strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0]>"}, True),
        ({"conv": '<group = 1, kernel_shape = [3, 3], auto_pad = "NOTSET">'}, True),
        ({"pool": ", ceil_mode = 0, strides = [1, 1]", "relu": "<alpha = 0.01>"}, True),
        ({"conv": "<strides = [1, 2]>"}, False),
        ({"conv": "<pads = [0, 0, 0, 1]>"}, False),
        ({"pool": ", ceil_mode = 1"}, False),
        ({"relu": "<alpha = 0.02>"}, False),
    ],
)
def test_attributes_may_be_written_out_or_left_to_their_default(
    tmp_path, capsys, written, equal
) -> None:
    found = diff(capsys, conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx", **written))
    assert found["equal"] is equal
    if not equal:
        assert list(changes(found).values()) == [["computation"]]


def test_a_scale_and_a_bias_of_another_value_are_told(network, tmp_path, capsys) -> None:
    model = quantized().quantized
    spoil_weight_scale(model, "Conv_left", 1.5)
    bias = model.graph.initializers["b1"]
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1), name="b1")
    found = diff(capsys, network, written(model, tmp_path / "b.onnx"))
    assert changes(found) == {"Conv_a0": ["weights"], "Conv_left": ["weights"]}


def test_other_weights_of_the_same_size_are_said_to_be_so(network, tmp_path, capsys) -> None:
    model = quantized().quantized
    weight = next(node for node in model.graph if node.name == "Conv_left").inputs[1].producer()
    integers = weight.inputs[0]
    steps = integers.const_value.numpy().copy()
    steps.flat[np.flatnonzero(np.abs(steps) < 100)[0]] += 1
    integers.const_value = ir.tensor(steps, name=integers.name)
    told = trtbuild(capsys, "diff", network, written(model, tmp_path / "b.onnx")).out
    assert re.search(r"other integers or scales; largest weight [\d.]+ in both", told)


def test_what_is_kept_in_float_has_moved(network, tmp_path, capsys) -> None:
    other = insert_qdq(calibrated(), PlacementRequest(("Gemm",))).quantized
    found = diff(capsys, network, written(other, tmp_path / "b.onnx"))
    moved = {
        n["name"]: n["precision"] for n in found["nodes"] if n["precision"][0] != n["precision"][1]
    }
    assert moved["Gemm_logits"] == ["INT8", "float"]
    gemm = next(node for node in found["nodes"] if node["name"] == "Gemm_logits")
    assert gemm["first_bytes"] < gemm["second_bytes"]


def renamed(model: ir.Model, seed: int) -> dict[str, str]:
    """Give every node and inner tensor a meaningless name; return new name -> old."""
    numbers = np.random.default_rng(seed).permutation(10_000)
    inner = [v for node in model.graph for v in node.outputs if not v.is_graph_output()]
    for number, value in zip(numbers, inner):
        value.name = f"t{number}"
    old = {}
    for number, node in zip(numbers[5_000:], list(model.graph)):
        old[f"n{number}"] = node.name or ""
        node.name = f"n{number}"
    return old


@pytest.mark.parametrize("seed", range(3))
def test_renamed_nodes_are_matched_by_what_they_compute(network, tmp_path, capsys, seed) -> None:
    model = quantized().quantized
    old = renamed(model, seed)
    found = diff(capsys, network, written(model, tmp_path / "b.onnx"))
    assert changes(found) == {}
    assert found["only_first"] == found["only_second"] == []
    for node in found["nodes"]:
        assert node["matched_by"] == "computation"
        assert old[node["second_name"]] == node["name"]


CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[1, 4] x) => (float[1, 4] y) {
  %s
}
"""


def chain(path: Path, weights: list[np.ndarray]) -> Path:
    """MatMul and Relu in turns, numbered as by an exporter."""
    lines, before = [], "x"
    for number in range(len(weights)):
        last = number == len(weights) - 1
        lines.append(f"m{number} = MatMul ({before}, w{number})")
        before = "y" if last else f"r{number}"
        lines.append(f"{before} = Relu (m{number})")
    proto = onnx.parser.parse_model(CHAIN % "\n  ".join(lines))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number // 2}"
    for number, weight in enumerate(weights):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{number}"))
    onnx.save(proto, path)
    return path


def test_a_layer_that_is_gone_does_not_give_its_name_to_the_next(tmp_path, capsys) -> None:
    weights = list(np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32))
    first = chain(tmp_path / "a.onnx", weights)
    second = chain(tmp_path / "b.onnx", [weights[0], *weights[2:]])
    found = diff(capsys, first, second)
    pairs = {n["name"]: n["second_name"] for n in found["nodes"]}
    assert pairs == {
        "MatMul_0": "MatMul_0",
        "Relu_0": "Relu_0",
        "MatMul_2": "MatMul_1",
        "Relu_2": "Relu_1",
        "MatMul_3": "MatMul_2",
        "Relu_3": "Relu_2",
    }
    assert sorted(found["only_first"]) == ["MatMul_1", "Relu_1"]
    assert changes(found) == {"MatMul_2": ["computation"]}


def test_networks_without_a_node_in_common_are_said_to_be_two_models(
    network, tmp_path, capsys
) -> None:
    other = chain(tmp_path / "b.onnx", [np.eye(4, dtype=np.float32)])
    done = trtbuild(capsys, "diff", network, other)
    assert done.code == 1
    assert "A and B seem to be of two models" in done.out


def test_two_builds_are_compared_with_their_figures(tmp_path, capsys) -> None:
    write_model(float_network(), tmp_path / "small.onnx")
    np.save(tmp_path / "images.npy", images(3, 32))
    for folder, method in (("a", "minmax"), ("b", "percentile")):
        words = [
            "--int8",
            "--data",
            tmp_path / "images.npy",
            "--calibrator",
            method,
            "--no-latency",
        ]
        assert (
            trtbuild(
                capsys, "engine", tmp_path / "small.onnx", *words, "-o", tmp_path / folder
            ).code
            == 0
        )
    page = tmp_path / "diff.html"
    found = diff(capsys, tmp_path / "a", tmp_path / "b", "--report", page)
    manifest = json.loads((tmp_path / "a" / "small.manifest.json").read_text())
    figures = {figure["name"]: figure for figure in found["figures"]}
    sqnr = manifest["verification"]["engine"]["outputs"][0]["sqnr_db"]
    figure = figures["engine: SQNR of 'logits', dB"]
    assert (figure["first"], figure["first_between"]) == (
        sqnr["value"],
        [sqnr["low"], sqnr["high"]],
    )
    assert found["conditions"] == []
    assert found["first"]["network"] == "small.int8.onnx"
    elsewhere = json.loads((tmp_path / "b" / "small.manifest.json").read_text())
    elsewhere["data"]["verification_digest"] = "another"
    (tmp_path / "c.manifest.json").write_text(json.dumps(elsewhere))
    (tmp_path / "c.manifest.json").rename(other := tmp_path / "b" / "small.manifest.json")
    assert diff(capsys, tmp_path / "a", other)["conditions"] == [
        "they were judged on different data"
    ]
    told = trtbuild(capsys, "diff", tmp_path / "a", other).out
    assert "note: they were judged on different data, so not all figures can be compared" in told
    assert "nodes of small.int8.onnx" in told
    for side in ("first_between", "second_between"):
        low, high = figure[side]
        assert f"({low:.4g} to {high:.4g})" in told
    assert {kind for kinds in changes(found).values() for kind in kinds} == {"range"}
    assert "Conv_a2" in page.read_text()
    amax = [
        json.loads((tmp_path / f / "small.manifest.json").read_text())["calibration"]["amax"]
        for f in "ab"
    ]
    for folder in "ab":  # a manifest without the other files, against a whole build and another one
        (tmp_path / folder / "small.int8.onnx").unlink()
        alone = diff(capsys, tmp_path / "a", tmp_path / "b")
        assert {r["of"] for r in alone["ranges"]} == {
            n for n in amax[0] if amax[0][n] != amax[1][n]
        }
    assert "no Q/DQ network" in alone["first"]["unknown"]
    network = tmp_path / "b" / "small.onnxruntime.onnx"
    shown = trtbuild(capsys, "diff", tmp_path / "a", network, "--all").out
    assert "Conv_a2" in shown
    assert "bytes, B - A" not in shown  # A's size is unknown


def test_speed_and_what_it_was_measured_on_are_compared(tmp_path, capsys) -> None:
    write_model(float_network(), tmp_path / "small.onnx")
    np.save(tmp_path / "images.npy", images(3, 32))
    words = ("--int8", "--data", tmp_path / "images.npy", "--no-latency", *FAST)
    assert trtbuild(capsys, "engine", tmp_path / "small.onnx", *words, "-o", tmp_path).code == 0
    manifest = json.loads((tmp_path / "small.manifest.json").read_text())
    # half of float's time, or a quarter to four fifths
    verdict = decide(FLOAT, ENGINE, Estimate(0.5, 0.25, 0.8), 0.0, 2.0)
    latency = summarize(Samples(ENGINE, 1, MONOTONIC, 1, (1.0, 2.0, 3.0) * 4))
    manifest |= {"latency": {ENGINE: latency}, "latency_verdicts": {ENGINE: verdict}}
    first, second = tmp_path / "a.manifest.json", tmp_path / "b.manifest.json"
    manifest["engine"]["details"]["machine"] = {"gpu": "one"}
    first.write_text(json.dumps(encode(manifest)))
    manifest["engine"]["details"]["machine"]["gpu"] = "another"
    manifest["machine"]["processor"] = manifest["model"]["graph"] = "another"
    manifest["data"]["verification_digest"] = ""  # unknown, which is no difference
    second.write_text(json.dumps(encode(manifest)))
    found = diff(capsys, first, second)
    assert found["conditions"] == [
        "the float networks differ",
        "they were timed on different machines",
        "they were timed on different GPUs",
    ]
    figures = {figure["name"]: figure for figure in found["figures"]}
    speed = figures["engine: speed, x float"]
    assert (speed["first"], speed["first_between"]) == (2.0, [1.25, 4.0])
    assert figures["engine: latency, ms"]["second"] == 2.0


def layers(path: Path, precision: str, tactic: str) -> Path:
    """Two layers as written by ``trtexec --exportLayerInfo``."""
    entries = [
        {"Name": "Conv_a0 + Relu_a1", "LayerType": "CaskConvolution", "TacticName": tactic,
         "Metadata": "[ONNX Layer: Conv_a0]\x1e[ONNX Layer: Relu_a1]",
         "Inputs": [{"Name": "r0", "Format/Datatype": precision, "Dimensions": [1]}], "Outputs": []},
        {"Name": "Gemm_logits", "LayerType": "MatrixMultiply", "TacticName": "same", "Metadata": "",
         "Inputs": [{"Name": "flat", "Format/Datatype": "FP32", "Dimensions": [1]}], "Outputs": []},
    ]  # fmt: skip
    path.write_text(json.dumps({"Layers": entries, "Bindings": []}))
    return path


def test_layers_of_two_engines_and_what_they_take(tmp_path, capsys) -> None:
    one = layers(tmp_path / "a.json", "Int8 NC/4HW4", "sm80_int8")
    other = layers(tmp_path / "b.json", "FP16 NHWC8", "sm80_fp16")
    for name, first in (("ta", 1.5), ("tb", 4.0)):
        profile = [{"count": 10}, {"name": "Conv_a0 + Relu_a1", "averageMs": first},
                   {"name": "Gemm_logits", "averageMs": 0.25}]  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(profile))
    found = diff(
        capsys, one, other, "--times-a", tmp_path / "ta.json", "--times-b", tmp_path / "tb.json"
    )
    assert changes(found) == {"Conv_a0": ["ran", "kernel"], "Relu_a1": ["ran", "kernel"]}
    conv, relu, gemm = found["nodes"]
    assert (conv["first_ms"], conv["second_ms"]) == (1.5, 4.0)
    assert relu["first_ms"] is None  # the time of its layer is reported once
    assert gemm["first_ms"] == 0.25
    assert (found["first"]["ms"], found["second"]["ms"]) == (1.75, 4.25)


def test_times_are_shown_with_the_digits_that_they_have(tmp_path, capsys) -> None:
    engine = layers(tmp_path / "a.json", "Int8", "a")
    for name, gemm in (("ta", 0.2), ("tb", 0.7)):
        profile = [{"count": 1}, {"name": "Conv_a0 + Relu_a1", "averageMs": 0.1},
                   {"name": "Gemm_logits", "averageMs": gemm}]  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(profile))
    times = ("--times-a", tmp_path / "ta.json", "--times-b", tmp_path / "tb.json")
    assert "0.3000" not in trtbuild(capsys, "diff", engine, engine, *times).out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("folder", None, "and has none"),
        ("x.onnx", b"nothing", "is not an ONNX file"),
        ("x.json", b"{}", "x.json' is not the layer information"),
        ("x.manifest.json", b"{}", "not a trtbuild.manifest file"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    network, tmp_path, capsys, name, content, said
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert said in trtbuild(capsys, "diff", network, path).sentence


@pytest.mark.parametrize("text", ['[{"name": "a"}]', "[]"])
def test_a_damaged_profile_is_one_sentence(network, tmp_path, capsys, text) -> None:
    (tmp_path / "t.json").write_text(text)
    said = trtbuild(capsys, "diff", network, network, "--times-a", tmp_path / "t.json").sentence
    assert "holds no layer times" in said


def test_layer_times_of_the_bench_belong_to_the_nodes_of_the_network(
    network, tmp_path, capsys
) -> None:
    times = tmp_path / "times.json"
    np.save(tmp_path / "images.npy", images(3, 8))
    short = ["--seconds", "0.1", "--warmup-ms", "1", "--data", tmp_path / "images.npy"]
    timed = trtbuild(capsys, "bench", network, *short, "--layer-times", times, "--json")
    assert timed.code == 0
    assert valid(json.loads(times.read_text()))["schema"] == "trtbuild.layer_times"
    assert valid(timed.json)["layers"]["layers"] == json.loads(times.read_text())["layers"]
    found = diff(capsys, network, network, "--times-a", times, "--times-b", times)
    convolutions = [node for node in found["nodes"] if node["op_type"] == "Conv"]
    assert all(node["first_ms"] is not None for node in convolutions)
    assert sum(n["first_ms"] or 0 for n in found["nodes"]) <= found["first"]["ms"] * (1 + 1e-9)


def text_network(path: Path, body: str, initializers: dict[str, np.ndarray]) -> Path:
    """A network of another tool, from ONNX's text form; ``y`` is its output unless it names others."""
    inputs = "(float[1, 4, 8, 8] x, bool c)"
    outputs = "" if body.startswith("(") else "(float[1, 4, 8, 8] y)"
    text = f"agraph {inputs} => {outputs} {body}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    for name, value in initializers.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(proto, path)
    return path


RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(4, 4, 1, 1)).astype(np.float32)
NUMBERS = {
    "w": WEIGHT,
    "moved": WEIGHT + RANDOM.normal(size=WEIGHT.shape).astype(np.float32) / 30,
    "i": np.clip(np.rint(WEIGHT / np.float32(0.02)), -128, 127).astype(np.int8),
    "s": np.full(4, 0.02, np.float32),
    "z": np.zeros(4, np.int8),
    "a": np.array(0.01, np.float32),
    "b": np.array(0.05, np.float32),
    "zero": np.array(0, np.int8),
}
FLOATS = """{
  q = QuantizeLinear <axis = 0> (%s, s, z)
  d = DequantizeLinear <axis = 0> (q, s, z)
  y = Conv (x, d)
}"""
INTEGERS = "{ d = DequantizeLinear <axis = %d> (i, s, z) y = Conv (x, d) }"
LAST = """{
  r = Relu (x)
  q = QuantizeLinear (r, %s, zero)
  y = DequantizeLinear (q, %s, zero)
}"""
TWICE = """{
  q = QuantizeLinear (x, %s, zero)
  d = DequantizeLinear (q, %s, zero)
  p = QuantizeLinear (d, b, zero)
  e = DequantizeLinear (p, b, zero)
  y = Relu (e)
}"""
BRANCH = """{
  q = QuantizeLinear (x, %(scale)s, zero)
  d = DequantizeLinear (q, %(scale)s, zero)
  y = If (c) <
    then_branch = one () => (float[1, 4, 8, 8] %(name)s) { %(name)s = Relu (d) },
    else_branch = two () => (float[1, 4, 8, 8] o) { o = %(other)s }
  >
}"""


def branch(*, scale: str = "a", name: str = "t", other: str = "Tanh (d)") -> str:
    return BRANCH % {"scale": scale, "name": name, "other": other}


BOTH = "(float[1, 4, 8, 8] %s, float[1, 4, 8, 8] %s) { r = Relu (x) t = Sigmoid (x) }"


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (FLOATS % "w", FLOATS % "moved", "weights"),
        (INTEGERS % 0, INTEGERS % 1, "weights"),
        ("{ y = Relu (x) }", LAST % ("a", "a"), None),
        (LAST % ("a", "a"), LAST % ("b", "b"), "range"),
        (LAST % ("a", "a"), LAST % ("a", "b"), "range"),
        (TWICE % ("a", "a"), TWICE % ("b", "b"), "range"),
        (branch(), branch(other="Sigmoid (d)"), "computation"),
        (branch(), branch(other="Tanh (x)"), "computation"),
        (branch(), branch(scale="b"), "range"),
        (BOTH % ("r", "t"), BOTH % ("t", "r"), "computation"),
    ],
)
def test_what_computes_otherwise_is_told(tmp_path, capsys, one, other, told) -> None:
    first, second = (
        text_network(tmp_path / name, body, NUMBERS)
        for name, body in (("a.onnx", one), ("b.onnx", other))
    )
    found = diff(capsys, first, second)
    kinds = {kind for kinds in changes(found).values() for kind in kinds}
    assert (told or "range") in kinds
    assert not found["only_first"]
    assert not found["only_second"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FLOATS % "w", INTEGERS % 0),
        (branch(), branch(name="renamed")),
        (TWICE % ("a", "a"), TWICE % ("a", "a")),
    ],
)
def test_what_computes_alike_is_the_same(tmp_path, capsys, one, other) -> None:
    first, second = (
        text_network(tmp_path / name, body, NUMBERS)
        for name, body in (("a.onnx", one), ("b.onnx", other))
    )
    assert changes(diff(capsys, first, second)) == {}


def test_what_reads_floats_and_a_rounded_weight_is_not_in_int8(tmp_path, capsys) -> None:
    network = text_network(tmp_path / "a.onnx", FLOATS % "w", NUMBERS)
    (conv,) = diff(capsys, network, network)["nodes"]
    assert conv["precision"] == ["float, INT8 weights"] * 2
