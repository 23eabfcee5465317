"""``verify`` and ``bench`` as users call them: exit codes, JSON, one sentence for bad input."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from tests.command import trtbuild
from tests.trtbuild.verification.small_network import (
    float_network,
    images,
    quantized,
    spoil_weight_scale,
)
from trtbuild.cli.main import run
from trtbuild.model import write_model
from trtbuild.runtime.onnxruntime import open_session

if TYPE_CHECKING:
    from pathlib import Path


_TYPES = {"float16": "float16", "float32": "float", "float64": "double"}
"""ONNX's names."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    artifact = quantized()
    write_model(artifact.source, folder / "float.onnx")
    write_model(artifact.quantized, folder / "int8.onnx")
    for name in ("Conv_a0", "Conv_last"):
        spoil_weight_scale(artifact.quantized, name, 100.0)
    write_model(artifact.quantized, folder / "spoilt.onnx")
    other = float_network()
    other.graph.outputs[0].name = "scores"
    write_model(other, folder / "other.onnx")
    np.savez(folder / "images.npz", image=images(3, 40))
    np.savez(folder / "labels.npz", y=np.arange(40) % 6)
    np.savez(folder / "few.npz", y=np.arange(7))
    scores = open_session(artifact.source).run({"image": images(3, 40)})["logits"]
    np.savez(folder / "right.npz", y=scores.argmax(1))
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def verify(capsys, folder: Path, engine: str, *more: object) -> tuple[int, str, str]:
    data = ("--data", folder / "images.npz")
    return call(capsys, "verify", folder / "float.onnx", folder / engine, *data, *more)


def test_a_sound_engine_passes_and_json_is_all_there_is_on_stdout(capsys, folder) -> None:
    code, out, _ = verify(capsys, folder, "int8.onnx", "--min-sqnr", 20, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["schema"], found["version"]) == ("trtbuild.verification", 1)
    assert found["comparison"]["num_images"] == 40
    assert found["verdict"]["passed"] is True


def test_a_failed_gate_exits_1_with_the_numbers_and_is_judged_again_without_running(
    capsys, folder, tmp_path
) -> None:
    saved = tmp_path / "result.json"
    code, out, _ = verify(capsys, folder, "int8.onnx", "--min-sqnr", 90, "-o", saved)
    assert code == 1
    assert "at least 90 dB, failed" in out
    again = call(capsys, "verify", "--saved", saved, "--min-sqnr", 20)
    assert again[0] == 0
    strict = call(capsys, "verify", "--saved", saved, "--min-cosine", 0.9999999)
    assert strict[0] == 1


def test_verify_says_of_its_input_what_a_build_says(capsys, folder, tmp_path) -> None:
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, image=np.full_like(images(3, 40), 0.25))
    given = ("--data", wrong, "--min-sqnr", 1)
    code, out, err = call(
        capsys, "verify", folder / "float.onnx", folder / "int8.onnx", *given, "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert "40 samples verify; 'image' from 0.25 to 0.25" in found["account"]
    assert found["ruling"]["word"] == "NOT JUDGED"
    assert "the input 'image' hardly varies" in found["ruling"]["why"]
    assert found["next_step"]["command"].endswith("--preprocess PREPROCESS.toml")
    assert "warning: the input 'image' hardly varies" in err


@pytest.mark.parametrize(
    ("copies", "why", "step"),
    [
        (True, "distinct samples among the 40 that verify: 2", "--min-sqnr 1 --data MORE_SAMPLES"),
        (False, "the samples are random numbers", "--min-sqnr 1 --data MORE_SAMPLES"),
    ],
)
def test_too_few_samples_do_not_ship(capsys, folder, tmp_path, copies, why, step) -> None:
    np.savez(tmp_path / "copies.npz", image=np.repeat(images(3, 2), 20, 0))
    given = ("--data", tmp_path / "copies.npz") if copies else ("--random-data",)
    code, out, _ = call(
        *(capsys, "verify", folder / "float.onnx", folder / "int8.onnx", *given),
        *("--min-sqnr", 1, "--json"),
    )
    found = json.loads(out)
    assert (code, found["ruling"]["word"]) == (0, "NOT JUDGED")
    assert why in found["ruling"]["why"]
    assert found["next_step"]["command"].endswith(step)
    assert "--random-data" not in found["next_step"]["command"]


def test_commands_offer_only_the_data_options_that_they_use(capsys, folder) -> None:
    for command, flags in {
        "bench": ("--verify-data", "--labels", "--num-images", "--random-data"),
        "calibrate": ("--verify-data", "--labels"),
        "verify": ("--verify-data",),
    }.items():
        said = call(capsys, command, "--help-all")[1]
        assert "--data" in said
        assert [flag for flag in flags if f"  {flag} " in said] == []


def test_the_layers_to_blame_are_named(capsys, folder) -> None:
    code, out, _ = verify(
        capsys, folder, "spoilt.onnx", "--min-sqnr", 15, "--layers", "--bisect", "--json"
    )
    found = json.loads(out)
    assert code == 1
    assert {layer["node"] for layer in found["layers"]["layers"][:2]} == {"Conv_a0", "Conv_last"}
    assert set(found["culprits"]["groups"]) == {"Conv_a0", "Conv_last"}


def test_sensitivity_lists_every_group(capsys, folder) -> None:
    code, out, _ = verify(
        capsys, folder, "int8.onnx", "--sensitivity", "--diagnose-images", 8, "--json"
    )
    found = json.loads(out)["sensitivity"]
    assert code == 0
    assert "Gemm_logits" in {group["group"] for group in found}


def test_a_table_of_sensitivities_says_what_its_order_is_by(capsys, folder) -> None:
    """The order is that of class probabilities, which no column shows."""
    words = ("--sensitivity", "--diagnose-images", 8)
    code, out, _ = verify(capsys, folder, "int8.onnx", *words)
    assert code == 0
    assert "most harmful alone first: by the task, else class probabilities, else SQNR" in out


@pytest.mark.parametrize(
    ("more", "has_classes"),
    [
        ((), False),  # also for a network that measures six quantities
        (("--task", "classify"), True),
        (("--scores", "logits"), True),
        (("--labels", "right.npz"), True),
        (("--min-top1-agreement", 1), True),
    ],
)
def test_classes_are_told_of_where_something_says_that_there_are_some(
    capsys, folder, monkeypatch, more, has_classes
) -> None:
    monkeypatch.chdir(folder)
    few = ("--sensitivity", "--diagnose-images", 8)
    _, out, _ = verify(capsys, folder, "int8.onnx", *few, *more)
    assert out.count("same top-1") == 2 * has_classes
    assert ("if 'logits' holds class scores, --task classify" in out) is not has_classes


def _of_two_types(folder: Path, kinds: tuple[str, str]) -> None:
    """Write one network in two types, and samples in float64."""
    rng = np.random.default_rng(5)
    values, weight = rng.standard_normal((12, 8)), rng.standard_normal((8, 4))
    for name, kind in zip(("a.onnx", "b.onnx"), kinds):
        text = f"""<ir_version: 10, opset_import: ["" : 21]>
            g ({_TYPES[kind]}[n, 8] x) => ({_TYPES[kind]}[n, 4] y) {{ y = MatMul (x, w) }}"""
        model = onnx.parser.parse_model(text)
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(kind), "w"))
        onnx.save(model, folder / name)
    np.save(folder / "x.npy", values)


@pytest.mark.parametrize("kinds", [("float64", "float64"), ("float32", "float16")])
def test_floats_of_another_type_are_compared_on_the_same_samples(capsys, tmp_path, kinds) -> None:
    _of_two_types(tmp_path, kinds)
    code, out, _ = call(
        capsys, "verify", tmp_path / "a.onnx", tmp_path / "b.onnx", "--data", tmp_path / "x.npy",
        "--min-sqnr", 50, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["verdict"]["passed"]


@pytest.mark.parametrize(
    ("engine", "more", "message"),
    [
        ("other.onnx", [], "outputs 'scores'"),
        ("absent.onnx", [], "does not exist"),
        ("labels.npz", ["--backend", "onnxruntime"], "is not an ONNX file"),
        ("int8.onnx", ["--labels", "few.npz"], "7 labels"),
        ("int8.onnx", ["--max-top1-drop", "1"], "--labels"),
        ("int8.onnx", ["--metric", "math:pi"], "not a function"),
        ("int8.onnx", ["--metric", "math:floor"], "'math:floor' raised TypeError"),
        ("int8.onnx", ["--metric", "builtins:repr"], "repr' raised|returned"),
        ("int8.onnx", ["--bisect"], "needs a limit"),
        ("int8.onnx", ["--backend", "nothing"], "no backend 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(capsys, folder, engine, more, message) -> None:
    more = [folder / item if item == "few.npz" else item for item in more]
    code, out, err = verify(capsys, folder, engine, *more)
    assert code == 2
    assert out == ""
    assert re.search(message, err)
    assert "Traceback" not in err


def test_data_of_the_wrong_shape(capsys, folder, tmp_path) -> None:
    np.savez(tmp_path / "wide.npz", image=np.zeros((4, 3, 12), np.float32))
    code, _, err = call(
        capsys,
        "verify",
        folder / "float.onnx",
        folder / "int8.onnx",
        "--data",
        tmp_path / "wide.npz",
    )
    assert code == 2
    assert "image" in err


BENCH = ("--seconds", 0.2, "--warmup-ms", 1, "--within", 400)


def test_bench_times_an_engine_at_several_batch_sizes(capsys, folder) -> None:
    code, out, _ = call(
        capsys, "bench", folder / "int8.onnx", "--batch-size", "1,4", *BENCH, "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert [one["batch_size"] for one in found["latencies"]] == [1, 4]
    assert found["data"] == "random data"
    assert all(one["p99_ms"] >= one["median_ms"] > 0 for one in found["latencies"])


def test_engines_of_one_name_are_told_apart(capsys, folder, tmp_path, monkeypatch) -> None:
    (tmp_path / "new").mkdir()
    for place in (tmp_path, tmp_path / "new"):
        shutil.copy(folder / "int8.onnx", place / "net.onnx")
    monkeypatch.chdir(tmp_path)
    for engine in ("new/net.onnx", "net.onnx"):
        found = trtbuild(
            capsys, "bench", engine, "--against", "net.onnx", "--seconds", 0.05, "--json"
        ).json
        assert [one["name"] for one in found["latencies"]] == ["./net.onnx", "net.onnx"]
        (verdict,) = found["verdicts"]
        assert (verdict["base"], verdict["candidate"]) == ("./net.onnx", "net.onnx")


def test_bench_against_itself_within_a_wide_margin_is_the_same(capsys, folder) -> None:
    float_file = folder / "float.onnx"
    code, out, _ = call(capsys, "bench", float_file, "--against", float_file, *BENCH, "--json")
    verdict = json.loads(out)["verdicts"][0]
    assert code == 0
    assert verdict["answer"] in ("same", "cannot tell")


@pytest.mark.parametrize(
    "kinds", [("float32", "float64"), ("float64", "float32"), ("float16", "float32")]
)
def test_bench_gives_each_network_the_floats_that_it_takes(capsys, tmp_path, kinds) -> None:
    _of_two_types(tmp_path, kinds)
    engine, against, times = (tmp_path / name for name in ("a.onnx", "b.onnx", "times.json"))
    data = ("--data", tmp_path / "x.npy", "--layer-times", times)
    code, out, said = call(capsys, "bench", engine, "--against", against, *data, *BENCH, "--json")
    assert code in (0, 1)
    assert len(json.loads(out)["latencies"]) == 2
    assert json.loads(times.read_text())["layers"]
    assert ("became float32" in said) == ("float64" in kinds)


def test_bench_times_float64_as_the_float32_that_builds_read(capsys, tmp_path) -> None:
    _of_two_types(tmp_path, ("float64", "float32"))
    saved = tmp_path / "baseline.json"
    assert call(capsys, "bench", tmp_path / "a.onnx", "--save-baseline", saved, *BENCH)[0] == 0
    assert json.loads(saved.read_text())["inputs"][0]["dtype"] == "float32"


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--strict",), 5)])
def test_what_bench_cannot_tell_has_not_passed(capsys, folder, monkeypatch, words, code) -> None:
    from trtbuild.jobs.bench import BenchResult
    from trtbuild.latency.conditions import Conditions, this_device
    from trtbuild.latency.measure import MONOTONIC, Samples
    from trtbuild.latency.regress import taken_together

    # in every other turn of three runs, the machine is slow
    base, engine = (
        Samples(name, 1, MONOTONIC, 3, tuple((ms, busy)[i // 3 % 2] + i % 3 for i in range(45)))
        for name, ms, busy in (("base", 7.0, 7.0), ("engine", 3.0, 10.5))
    )
    taken = BenchResult(
        (base, engine), (taken_together(base, engine),), (), this_device(), Conditions(), "random"
    )
    monkeypatch.setattr("trtbuild.jobs.bench.bench", lambda *_: taken)
    found, out, _ = call(capsys, "bench", folder / "int8.onnx", *words)
    assert found == code
    assert out.splitlines()[-1].startswith("CANNOT TELL: whether it is slower; measure longer")


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        (("--min-speedup", 1000), 1),
        (("--min-speedup", 0.001), 0),
        (("--max-latency", 1e-6), 1),
        (("--max-latency", 1e6), 0),
    ],
)
def test_bench_holds_limits_on_speed(capsys, folder, tmp_path, limit, code) -> None:
    path, junit = folder / "float.onnx", tmp_path / "junit.xml"
    words = ("bench", path, "--against", path, *limit, *BENCH, "--json", "--junit", junit)
    found, out, err = call(capsys, *words)
    assert found == code, err
    answer, printed, tests = json.loads(out), err.splitlines(), junit.read_text()
    (held,) = answer["speed"]
    assert (held["passed"], held["settled"]) == (code == 0, True)
    assert f'failures="{code}"' in tests
    word = answer["ruling"]["word"]
    # a file compared with itself may be too noisy to decide
    assert word == "TOO SLOW" if code else word in ("FAST ENOUGH", "CANNOT TELL")
    assert f'name="verdict" value="{word}"' in tests
    assert printed[-1].startswith(f"{word}: ")
    assert printed == [line.rstrip() for line in printed]


def test_bench_against_a_baseline_of_this_device_and_of_another(capsys, folder, tmp_path) -> None:
    path = tmp_path / "baseline.json"
    engine = folder / "int8.onnx"
    assert call(capsys, "bench", engine, "--save-baseline", path, *BENCH)[0] == 0
    junit = tmp_path / "junit.xml"
    code, out, _ = call(capsys, "bench", engine, "--against", path, *BENCH, "--junit", junit)
    assert code in (0, 1)
    assert "'int8.onnx' against 'baseline.json'" in out
    assert 'name="against baseline.json, batch 1"' in junit.read_text()
    data = json.loads(path.read_text())
    (taken,) = data["inputs"]
    data["inputs"] = [{**taken, "name": "pixels"}]
    path.write_text(json.dumps(data))
    code, _, err = call(capsys, "bench", engine, "--against", path, *BENCH)
    assert code == 2
    assert "which takes 'pixels' float32" in err
    data["device"]["processor"] = "another CPU"
    path.write_text(json.dumps(data))
    code, _, err = call(capsys, "bench", engine, "--against", path, *BENCH)
    assert code == 2
    assert "another CPU" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx"], "does not exist"),
        (["int8.onnx", "--batch-size", "x"], "--batch-size"),
        (["int8.onnx", "--batch-size", "0"], "at least one sample"),
        (["int8.onnx", "--against", "other.onnx"], "they cannot be compared"),
        (["int8.onnx", "--against", "int8.onnx", "--within", "0"], "--within must be above 0 %"),
        (["int8.onnx", "--within", "nan"], "--within must be above 0 %, not nan"),
        (["int8.onnx", "--seconds", "0"], "--seconds must be above 0, not 0"),
        (["int8.onnx", "--warmup-ms", "-1"], "--warmup-ms must be 0 or more, not -1"),
        (["int8.onnx", "--max-rounds", "3"], "at most --max-rounds, and not 12 of 3"),
        (["int8.onnx", "--data", "images.npz", "--batch-size", "64"], "fewer than 64"),
        (
            ["int8.onnx", "--min-speedup", "2"],
            "--min-speedup needs something to compare with: --against",
        ),
        (["int8.onnx", "--max-latency", "nan"], "--max-latency must be a number above 0"),
        (["int8.onnx", "--batch-size", "1,2", "--save-baseline", "b.json"], "one batch size"),
    ],
)
def test_bad_input_of_bench(capsys, folder, arguments, message) -> None:
    known = [folder / a if a.endswith((".onnx", ".npz")) else a for a in arguments]
    code, out, err = call(capsys, "bench", "--seconds", 0.1, *known)
    assert code == 2
    assert out == ""
    assert message in err


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("notes.md", "# Notes\nä\n".encode(), "but a text"),
        ("net.plan", b"PK\x03\x04" + bytes(40), "but a zip archive"),
        ("net.plan", b"", "but empty"),
        ("net.plan", b"version https://git-lfs.github.com/spec/v1\n", "but a Git LFS pointer"),
        ("net.bin", None, "is an ONNX network, which needs a name that ends in .onnx"),
    ],
)
@pytest.mark.parametrize("command", [("bench",), ("inspect",), ("diff", "float.onnx")])
def test_what_is_no_engine_is_named(capsys, folder, tmp_path, command, name, content, kind) -> None:
    path = tmp_path / name
    path.write_bytes((folder / "int8.onnx").read_bytes() if content is None else content)
    code, _, err = call(capsys, *(folder / one if "." in one else one for one in command), path)
    assert code == 2
    assert kind in err
    assert "installed" not in err


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_network_is_no_plan_for_a_backend_of_plans(capsys, folder, backend) -> None:
    code, _, err = call(capsys, "bench", folder / "int8.onnx", "--backend", backend)
    assert code == 2
    assert "is an ONNX network, and no plan of TensorRT" in err
    assert "leave --backend out" in err


def test_an_engine_of_a_fixed_batch_is_not_timed_at_another(capsys, folder, tmp_path) -> None:
    model = float_network()
    model.graph.inputs[0].shape = ir.Shape([2, 3, 12, 12])
    write_model(model, tmp_path / "fixed.onnx")
    code, _, err = call(capsys, "bench", tmp_path / "fixed.onnx", "--batch-size", 3)
    assert code == 2
    assert "built for batch 2, not 3" in err


def _plan(path: Path, *version: int) -> Path:
    """The head of a plan that this version has built."""
    path.write_bytes(b"ftrt" + bytes(20) + bytes(version) + bytes(40))
    return path


@pytest.mark.parametrize(
    ("version", "backend", "named"),
    [
        ((1, 7, 1, 116), "tensorrt", "a plan of TensorRT for RTX"),
        ((11, 4, 0, 106), "tensorrt-rtx", "a plan of TensorRT,"),
    ],
)
def test_a_plan_of_the_other_product_is_named_before_what_is_installed(
    version, backend, named, capsys, folder, tmp_path
) -> None:
    plan = _plan(tmp_path / "net.plan", *version)
    (other,) = {"tensorrt", "tensorrt-rtx"} - {backend}
    data = ("--data", folder / "images.npz")
    for words in (("bench",), ("verify", folder / "float.onnx")):
        code, _, said = call(capsys, *words, plan, *data, "--backend", backend)
        assert code == 2
        assert named in said
        assert f"give --backend {other}." in said
        assert "installed" not in said


def test_what_opens_an_rtx_plan_of_any_name_asks_for_tensorrt_for_rtx(
    capsys, folder, tmp_path, monkeypatch
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    plan = _plan(tmp_path / "net.plan", 1, 7, 1, 116)
    verify_it = ("verify", folder / "float.onnx", plan, "--data", folder / "images.npz")
    for words in (("bench", plan), ("inspect", plan), ("diff", plan, plan), verify_it):
        code, _, said = call(capsys, *words)
        assert code == 3
        assert "TensorRT for RTX is not installed" in said
