"""Plans by NVIDIA's own parser and builder, TensorRT for RTX, on a machine that may have no GPU."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild import DataRecipe, EngineRecipe, build_engine
from trtbuild.backends import choose_backend
from trtbuild.backends.opening import open_engine
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.builder import Blueprint, build_plan
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.cli.main import run
from trtbuild.errors import InputError, MissingError, ModelError, OptionError
from trtbuild.jobs.build_checks import check_build
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.targets import engine_target
from trtbuild.model import write_model
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.quantization.half import to_half
from trtbuild.report.engine import engine_report
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.tensorrt.versions import RTX, TensorRT, native_version, product_of
from trtbuild.titles import ENGINE, PORTABLE, TENSORRT_FORM
from trtbuild.verification.gate import Gate
from trtbuild.verification.ruling import NOT_JUDGED

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.backends.base import Engine
    from trtbuild.result import EngineResult

pytestmark = pytest.mark.usefixtures("rtx")


@pytest.fixture(autouse=True)
def _without_gpu() -> None:
    if not cuda_driver().problem:
        pytest.skip("says what is done without a GPU, and there is one")


def built(folder: Path, artifact: Any = None, *, fp16: bool = False, **settings: Any) -> Engine:
    """Build a plan of the small network, or of `artifact`."""
    wanted = networks.request(artifact or networks.calibrated(), fp16=fp16, **settings)
    return TensorRTBackend(product=RTX).build(dataclasses.replace(wanted, directory=folder))


def test_package_and_library_are_of_one_version(rtx: TensorRT) -> None:
    assert native_version(rtx) == rtx.number


def test_float_patterns_without_int8_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "net.onnx"
    model.touch()
    recipe = EngineRecipe(
        model,
        tmp_path / "out",
        int8=False,
        fp16=True,
        float_patterns=("Conv",),
        backend=RTX.backend,
    )
    check_build(recipe)
    assert any("so they change nothing" in one for one in caplog.messages)


def test_a_plan_says_what_it_is_for_and_that_it_did_not_run(tmp_path: Path) -> None:
    engine = built(tmp_path)
    assert engine.path == tmp_path / "net.rtx.plan"
    # In float, four bytes for each weight: 3 and 16 channels to 16 by 3 x 3, and 16 to 16.
    num_weights = (3 + CHANNELS) * CHANNELS * 9 + CHANNELS**2
    assert num_weights <= engine.details["weights_bytes"] < 4 * num_weights
    assert "libcuda" in engine.not_opened or "GPU" in engine.not_opened
    assert engine.details["precision"].startswith("not checked: the plan was not opened")
    assert engine.details["quantization"] == "explicit"
    assert engine.details["errors"] == []
    # What NVIDIA documents as the default: 8.0, 8.6, 8.9, 12.0 and later, and not 7.5.
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(engine.details["compute_capabilities"])
    assert "7.5" not in engine.details["compute_capabilities"]
    assert "8.0, 8.6, 8.9, 12.0" in engine.notes[0]
    assert "--fp16" in engine.notes[1]


def test_a_plan_of_any_name_is_known_for_what_it_is(tmp_path: Path) -> None:
    renamed = built(tmp_path).path.rename(tmp_path / "net.plan")
    assert product_of(renamed) is RTX
    with pytest.raises(
        MissingError, match="GPU"
    ):  # rather than a message that TensorRT is not installed
        open_engine(renamed)


CHANNELS = networks.CHANNELS


def test_one_plan_for_chosen_gpus_in_int8_and_fp16(tmp_path: Path) -> None:
    engine = built(tmp_path, fp16=True, compute_capabilities=["8.9", "12.0"])
    assert engine.details["compute_capabilities"] == ("8.9", "12.0")
    assert [" ".join(note.split()[:2]) for note in engine.notes] == ["the plan", "the figures"]


def test_turing_takes_int8_with_fp16_alone(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"7\.5 \(Turing\).*Add --fp16"):
        built(tmp_path, compute_capabilities=["7.5"])
    assert list(tmp_path.iterdir()) == []
    engine = built(tmp_path, fp16=True, compute_capabilities=["7.5", "8.9"])
    assert engine.path.is_file()
    # the small network's two convolutions run in INT8 on 8.9
    assert any("(Turing) its 2 INT8 convolutions run in FP16" in note for note in engine.notes)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"compute_capabilities": ["9.0"]}, r"knows no compute capability 9\.0; it knows 7\.5, 8\.0"),
        ({"quantization": "implicit"}, "10 is the last version with calibrators"),
        ({"calibrator": "minmax"}, "--trt-calibrator: it has no calibrators"),
        ({"ranges": "host"}, "--ranges: it has no calibrators"),
        ({"cache": "net.cache"}, "--cache: it has no calibrators"),
        ({"timing_cache": "timing.cache"}, "--timing-cache: it times no kernels"),
        ({"version_compatible": True}, "--version-compatible: its packages lack"),
        ({"hardware_compatibility": "ampere_plus"}, "--compute-capability says which GPUs"),
        ({"runtime_platform": "windows_amd64"}, "run on Linux and Windows alike"),
        ({"refit": "all"}, "--refit only on a machine with a GPU"),
        ({"strip_plan": True}, "--strip-plan only on a machine with a GPU"),
        ({"build_route": "x"}, "it has no build routes"),
        ({"dla": 0}, "DLA"),
    ],
)  # fmt: skip
def test_options_that_rtx_lacks_are_refused_before_the_build(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    options = networks.tensorrt_options(settings)
    with pytest.raises(OptionError, match=reason):
        TensorRTBackend(product=RTX).check(options, int8=True, fp16=False)


def test_options_of_rtx_are_refused_for_tensorrt(
    rtx: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "trtbuild.backends.tensorrt.backend.installed",
        lambda product: TensorRT(rtx.module, "11.4.0.106"),
    )
    with pytest.raises(
        OptionError, match="are options of TensorRT for RTX, but this is TensorRT 11"
    ):
        TensorRTBackend().check(
            TensorRTOptions(compute_capabilities=("8.9",)), int8=True, fp16=False
        )


def test_attention_that_needs_fp16_is_refused_with_that_advice(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 23]>
        g (float[1, 10, 64] q, float[1, 10, 32] k, float[1, 10, 32] v) => (float[1, 10, 64] y) {
            y = Attention <q_num_heads = 4, kv_num_heads = 2, is_causal = 1> (q, k, v)
        }""")
    model = ir.from_proto(proto)
    artifact = dataclasses.replace(networks.float_artifact(), model=model, source=model)
    with pytest.raises(ModelError, match="try `trtbuild engine --fp16`"):
        built(tmp_path, artifact)
    assert built(tmp_path, artifact, fp16=True).path.is_file()


def test_a_refused_node_is_named_with_its_reason(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21, "of.nobody": 1]>
        net (float[1, 3, 8, 8] images) => (float[1, 3, 8, 8] y) {
            y = of.nobody.Strange(images)
        }
    """)
    proto.graph.node[0].name = "odd_one"

    model = ir.from_proto(proto)
    artifact = dataclasses.replace(networks.float_artifact(), model=model, source=model)
    with pytest.raises(ModelError, match=r"(?s)TensorRT for RTX .*'odd_one' \(Strange\)"):
        built(tmp_path, artifact, fp16=True)
    assert list(tmp_path.iterdir()) == []


def build(folder: Path, **settings: Any) -> EngineResult:
    """Do the main job with the small network."""
    write_model(networks.network(), folder / "net.onnx")
    images = np.random.default_rng(1).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", images=images)
    data = DataRecipe(data=str(folder / "data.npz"))
    given = {"model": folder / "net.onnx", "output": folder / "out", "data": data, "latency": None}
    return build_engine(EngineRecipe(**{**given, **settings}))


@pytest.mark.parametrize(
    ("text", "node", "reason", "advice"),
    [
        (
            "(float[1, 8, 4] b, float[1, 3, 8] s) => (int64[m, 3] y) { y = NonMaxSuppression(b, s) }",
            *("odd", "no kernel for it", "EfficientNMS_TRT"),
        ),
        ("(int16[2] x) => (int16[2] y) { y = Add(x, x) }", "", "type: 'x', 'y'", "no 16-bit"),
        (
            "(float[1, 1, 1, 1, 1, 1, 1, 1, 2] x) => (float[1, 1, 1, 1, 1, 1, 1, 1, 2] y) { y = Relu(x) }",
            *("", "dimensions: 'x', 'y'", "at most 8 axes"),
        ),
        (
            "(float[1, 8, 4] b, float[1, 8, 3] s) => (int32[1, 1] n) { n, x = TRT.EfficientNMS_TRT(b, s) }",
            *("odd", "Plugin not found", "build with TensorRT, load a plugin"),
        ),
    ],
)
def test_what_is_refused_is_named(
    text: str, node: str, reason: str, advice: str, rtx: TensorRT, tmp_path: Path
) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17, "TRT": 1]> g {text}')
    proto.graph.node[0].name = "odd"
    onnx.save(proto, tmp_path / "refused.onnx")
    (refused,) = find_refusals(rtx, tmp_path / "refused.onnx").refused
    assert refused.node == node
    assert reason in refused.reason
    assert advice in refused.advice


@pytest.mark.parametrize("limit", [0, 10**9], ids=["mapped", "whole"])
@pytest.mark.parametrize("name", ["n" * size for size in range(1, 5)])
def test_weights_of_a_large_file_are_found_at_any_offset(
    name: str, limit: int, rtx: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtbuild.backends.tensorrt.refusals.MAPPED_LIMIT", limit)
    text = "(float[1, 256] x) => (float[1, 256] y) { y = MatMul(x, w) }"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {name} {text}')
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((256, 256), np.float32), "w")
    )
    onnx.save(proto, tmp_path / "large.onnx")
    assert not find_refusals(rtx, tmp_path / "large.onnx").refused
    proto.graph.node.add(op_type="Det", name="odd", input=["y"], output=["z"])
    onnx.save(proto, tmp_path / "refused.onnx")
    (refused,) = find_refusals(rtx, tmp_path / "refused.onnx").refused
    assert refused.operator == "Det"


LSTM = """(float[3, 1, 2] x, int32[1] n) =>
    (float[3, 1, 1, 2] y) { a = MatMul(x, s) y = LSTM <hidden_size = 2> (a, w, r, , n) }"""
CACHE = """(float[1, 1, 4, 2] past, float[1, 1, 1, 2] x, int64[1] n) =>
    (float[1, 1, 4, 2] y) { a = MatMul(x, s) y = TensorScatter(past, a, n) }"""
SUMS = """(float16[1, 2] x) =>
    (float16[1, 2] y) { a = Exp(x) m = ReduceMean(a) b = Sub(a, m) y = MatMul(b, half) }"""
SHARED = """(float[1, 4, 16] q, float[1, 4, 8] k) =>
    (float[1, 4, 16] y) { y = Attention <q_num_heads = 2, kv_num_heads = 1, is_causal = 1> (q, k, k) }"""


@pytest.mark.parametrize(
    ("text", "fp16"),
    [(LSTM, True), (CACHE, True), (SUMS, True), (SHARED, False), (SHARED, True)],
    ids=["lengths of sequences", "cache", "FP16 that sums", "shared heads", "shared heads in FP16"],
)
def test_forms_that_rtx_refuses_are_rewritten_and_built(
    text: str, fp16: bool, rtx: TensorRT, tmp_path: Path
) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 11, opset_import: ["" : 24]> g {text}')
    read = {name for node in proto.graph.node for name in node.input}
    for name, shape in {"s": (2, 2), "w": (1, 8, 2), "r": (1, 8, 2), "half": (2, 2)}.items():
        if name in read:
            weight = np.ones(shape, np.float16 if name == "half" else np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(proto, tmp_path / "given.onnx")
    artifact = prepare(load(tmp_path / "given.onnx"))
    model = to_half(artifact.model, {})[0] if fp16 else artifact.model
    write_model(model, tmp_path / "made.onnx")
    options = dataclasses.replace(TensorRTOptions(), optimization_level=0)
    blueprint = Blueprint(tmp_path / "made.onnx", options)
    assert build_plan(rtx, blueprint).file.stat().st_size


def test_convolutions_alone_are_for_fp16_on_turing(tmp_path: Path) -> None:
    options = TensorRTOptions(compute_capabilities=("7.5",))
    with pytest.raises(ModelError, match=r"rtx-turing: Conv does not run .*Leave out --int8"):
        build(
            tmp_path,
            backend="tensorrt-rtx",
            fp16=True,
            tensorrt=options,
            float_patterns=("Gemm",),
        )
    result = build(tmp_path, backend="tensorrt-rtx", int8=False, fp16=True, tensorrt=options)
    assert result.engine.path.is_file()


def test_a_refused_network_is_not_calibrated(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 19]>
        g (float[1, 2, 5, 5] x, float[1, 18, 5, 5] offset) => (float[1, 2, 5, 5] y) {
            a = Conv(x, w) y = DeformConv <pads = [1, 1, 1, 1]> (a, v, offset) }""")
    proto.graph.node[1].name = "deformed"
    for name, shape in (("w", (2, 2, 1, 1)), ("v", (2, 2, 3, 3))):
        weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(proto, tmp_path / "deform.onnx")
    phases = []
    data = DataRecipe(random_data=True)
    recipe = EngineRecipe(
        model=tmp_path / "deform.onnx",
        output=tmp_path / "out",
        data=data,
        backend="tensorrt-rtx",
    )
    with pytest.raises(ModelError, match=r"'deformed' \(DeformConv\): .*--plugin LIB"):
        build_engine(recipe, lambda phase, *_: phases.append(phase))
    assert phases[-1] == "parse"
    assert "calibrate" not in phases


def test_without_a_gpu_the_figures_are_of_both_forms(tmp_path: Path) -> None:
    result = build(tmp_path, backend="tensorrt-rtx")
    assert set(result.comparisons) == {TENSORRT_FORM, PORTABLE}
    assert result.engine.path.is_file()
    told = json.loads(result.manifest.read_text())
    assert told["engine"]["backend"] == "tensorrt-rtx"
    assert told["engine"]["file"] == "net.rtx.plan"
    assert told["engine"]["not_opened"]
    assert told["also"] is None
    notes = " ".join(line.text for line in engine_report(result).notes)
    assert "'net.rtx.plan' was built but not run here" in notes
    assert "compute capability 8.0, 8.6, 8.9, 12.0" in notes


def test_a_plan_that_never_ran_is_not_called_ready_to_ship(tmp_path: Path) -> None:
    result = build(tmp_path, backend="tensorrt-rtx", gate=Gate(min_sqnr=5))
    assert result.passed
    assert result.ruling.word == NOT_JUDGED
    assert "built but not run here" in result.ruling.why
    step = json.loads(result.manifest.read_text())["next_step"]
    plan, data = tmp_path / "out" / "net.rtx.plan", tmp_path / "data.npz"
    words = [
        "verify",
        str(tmp_path / "net.onnx"),
        str(plan),
        "--data",
        str(data),
        "--min-sqnr",
        "5",
    ]
    assert step["command"].split() == ["trtbuild", *words]


def test_fp16_alone_is_judged_by_the_network_that_was_built(tmp_path: Path) -> None:
    result = build(tmp_path, backend="tensorrt-rtx", int8=False, fp16=True)
    (output,) = result.comparisons[TENSORRT_FORM].outputs
    # FP16 keeps 11 bits: a product's error is at most 2^-11, 66 dB; sums of 144 lose at most 20 dB.
    assert 46 < output.sqnr_db.value < np.inf


def test_an_rtx_plan_beside_the_engine(tmp_path: Path) -> None:
    result = build(tmp_path, also="tensorrt-rtx")
    assert set(result.comparisons) == {TENSORRT_FORM, ENGINE}
    assert result.engine.path.name == "net.onnxruntime.onnx"
    assert result.also.engine.path == tmp_path / "out" / "net.rtx.plan"
    assert {"net.rtx.plan", "net.onnxruntime.onnx"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    told = json.loads(result.manifest.read_text())
    assert told["also"]["backend"] == "tensorrt-rtx"
    assert told["files"]["net.rtx.plan"]["what"] == "TensorRT for RTX plan"


def test_inspect_tells_what_was_asked_where_no_plan_can_be_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = build(tmp_path, also="tensorrt-rtx")
    plan = result.also.engine.path
    capsys.readouterr()

    assert run(["inspect", str(plan), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "no GPU" in told["not_opened"]
    decided = {d.node: d.int8 for d in result.artifact.decisions}
    assert {node["node"]: node["asked"] == "INT8" for node in told["nodes"]} == decided

    assert run(["inspect", str(plan), "--open"]) == MissingError.exit_code
    capsys.readouterr()
    result.manifest.unlink()
    assert run(["inspect", str(plan)]) == MissingError.exit_code
    assert "net.manifest.json' is not there" in " ".join(capsys.readouterr().err.split())
    # and the message does not suggest TensorRT, which could not help
    assert run(["inspect", str(tmp_path / "out" / "net.int8.onnx")]) == InputError.exit_code
    assert "only the manifest of its build" in " ".join(capsys.readouterr().err.split())
    plan.unlink()
    assert run(["inspect", str(plan)]) == InputError.exit_code
    assert "does not exist" in " ".join(capsys.readouterr().err.split())


def test_a_dynamic_input_without_shapes_is_refused_before_calibration(tmp_path: Path) -> None:
    write_model(networks.network("batch"), tmp_path / "dynamic.onnx")
    with pytest.raises(OptionError, match="--shape 'images=1x3x8x8:8x3x8x8:32x3x8x8'"):
        build(tmp_path, backend="tensorrt-rtx", model=tmp_path / "dynamic.onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("asked", "warned"), [("dla", True), ("rtx", False), (None, False)])
def test_a_target_other_than_that_of_the_plan_is_warned_of(
    asked: str | None, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataRecipe(random_data=True)
    recipe = EngineRecipe(model=tmp_path / "m", output=tmp_path, data=data, target=asked)
    assert engine_target(recipe, ["tensorrt-rtx"]).name == (asked or "rtx")
    assert ("the target dla, as given, but the plan is for rtx" in caplog.text) == warned


@pytest.mark.parametrize("int8", [False, True])
def test_values_of_a_shape_input_come_from_all_samples(
    int8: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 8, 4, 4] x, int64[4] size) => (float[1, 8, H, W] y) {
            a = Conv(x, w) b = Resize <mode = "nearest"> (a, , , size) y = Conv(b, w) }""")
    weight = np.random.default_rng(0).normal(size=(8, 8, 1, 1)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(proto, tmp_path / "resize.onnx")
    for part, extents in {"calibrates": (4, 6, 6), "verifies": (8,)}.items():
        (tmp_path / part).mkdir()
        for number, extent in enumerate(extents):
            x = np.random.default_rng(number).normal(size=(1, 8, 4, 4)).astype(np.float32)
            np.savez(tmp_path / part / f"{number}.npz", x=x, size=[1, 8, extent, extent])
    data = DataRecipe(data=str(tmp_path / "calibrates"), verify_data=str(tmp_path / "verifies"))
    result = build(
        tmp_path, model=tmp_path / "resize.onnx", backend="tensorrt-rtx", data=data,
        int8=int8, fp16=not int8,
    )  # fmt: skip
    (values,) = result.engine.details["profile_values"]
    bounds = {"min": [1, 8, 4, 4], "opt": [1, 8, 6, 6], "max": [1, 8, 8, 8]}
    if not int8:  # data for calibration only is not read
        bounds = {kind: [1, 8, 8, 8] for kind in bounds}
    assert values == {"size": bounds}
    assert result.engine.details["profile_values_from_samples"] == ["size"]
    assert f"'size' are bounded by those in the samples, {bounds['min']}" in caplog.text


@pytest.mark.parametrize(
    ("capabilities", "target"), [(("7.5",), "rtx-turing"), (("7.5", "8.9"), "rtx"), ((), "rtx")]
)
def test_a_plan_for_turing_alone_has_a_target_of_its_own(
    capabilities: tuple[str, ...], target: str, tmp_path: Path
) -> None:
    options = TensorRTOptions(compute_capabilities=capabilities)
    data = DataRecipe(random_data=True)
    recipe = EngineRecipe(model=tmp_path / "m", output=tmp_path, data=data, tensorrt=options)
    assert engine_target(recipe, ["tensorrt-rtx"]).name == target


def test_the_same_backend_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="builds the engine already"):
        build(tmp_path, backend="tensorrt-rtx", also="tensorrt-rtx")


def test_auto_never_chooses_rtx() -> None:
    backend, _ = choose_backend()
    assert backend.name != "tensorrt-rtx"


def test_opening_without_a_gpu_says_so(tmp_path: Path) -> None:
    engine = built(tmp_path)
    with pytest.raises(MissingError, match=r"GPU|driver|CUDA"):
        open_engine(engine.path)
