"""Recipes: options match fields, files, ``init``, ``--dry-run``, ``rebuild``, fast help."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibrators import METHODS, PRESETS
from tests import manifests
from tests.command import FAST, trtbuild
from tests.models import NETWORKS
from trtbuild.cli.bench import command as bench_command
from trtbuild.cli.engine import command as engine_command
from trtbuild.cli.main import _COMMANDS
from trtbuild.cli.verify import command as verify_command
from trtbuild.options.calibrate import AS_TENSORRT, METHOD_NAMES
from trtbuild.options.fields import groups_of, options_of
from trtbuild.options.tables import dotted_names, make, read_table, to_table
from trtbuild.options.tensorrt import CUDA_PROVIDERS, OpenOptions, TensorRTOptions
from trtbuild.recipes import BenchRecipe, EngineRecipe, VerifyRecipe
from trtbuild.runtime.cuda import PROVIDERS
from trtbuild.toml_files import read_toml
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    import click

CNN = NETWORKS["opset_13"]
HEAVY = ("llvmlite", "onnx", "onnx_ir", "onnxruntime", "sympy", "numpy")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    model, data = CNN.save(tmp_path)
    return model, data, tmp_path / "out"


def flags_of(command: click.Command) -> list[str]:
    return [flag for parameter in command.params for flag in parameter.opts]


def every_flag(cls: type, file_only: tuple[str, ...] = ()) -> list[str]:
    found = [
        field.flag
        for field in options_of(cls)
        if field.name not in file_only and not field.option.argument
    ]
    for part in groups_of(cls):
        found += [flag for flag in (part.group.switch, part.group.from_file) if flag]
        found += every_flag(part.group.kind, part.group.file_only)
    return found


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        (engine_command, EngineRecipe),
        (verify_command, VerifyRecipe),
        (bench_command, BenchRecipe),
    ],
)
def test_every_field_has_its_option_and_every_flag_one_meaning(
    command: click.Command, recipe: type
) -> None:
    flags = flags_of(command)
    assert len(set(flags)) == len(flags)
    assert set(every_flag(recipe)) <= set(flags)


@pytest.mark.parametrize("command", [engine_command, verify_command])
def test_every_limit_has_an_option(command: click.Command) -> None:
    names = {parameter.name for parameter in command.params}
    assert {field.name for field in dataclasses.fields(Gate)} <= names


@pytest.mark.parametrize("cls", [Gate, OpenOptions, TensorRTOptions])
def test_every_field_of_the_option_classes_is_an_option(cls: type) -> None:
    assert [f.name for f in dataclasses.fields(cls)] == [f.name for f in options_of(cls)]


def test_listed_names_of_methods_and_providers_are_complete() -> None:
    assert set(METHOD_NAMES) == {*METHODS, *PRESETS, AS_TENSORRT}
    assert tuple(PROVIDERS) == CUDA_PROVIDERS


def test_help_shows_groups_defaults_units_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub(r"\s+", " ", trtbuild(capsys, "engine", "--help").out)
    assert "--prune RATIO Remove this share of the channels, 0.5 for half. --" in text
    assert "for each batch size. [s; default: 2]" in text
    for wanted in ("TensorRT:", "Limits:", "Preprocessing:", "default: entropy", "[dB]", "x>=1"):
        assert wanted in text


def test_a_recipe_goes_into_a_table_and_back() -> None:
    table = {
        "model": "net.onnx",
        "int8": False,
        "fp16": True,
        "data": {"data": "d.npz", "preprocess": {"mean": [1, 2, 3], "resize": [8, 9]}},
        "calibrate": {"method_options": {"percentile": 99.5}, "until_stable": "1%"},
        "tensorrt": {"workspace": "4GiB", "pools": ["tactic=1K"], "refit": "all"},
        "gate": {"min_sqnr": 20},
        "latency": {"enabled": False},
        "export": {
            "source": {"target": "a:b", "arguments": {"depth": 3}},
            "inputs": ["x:1x3x8x8:float32:0..255"],
            "prune": {"layer_ratios": ["head=0.5"]},
        },
    }
    recipe = make(EngineRecipe, read_table(EngineRecipe, table, "t"))
    assert recipe.tensorrt.workspace == 4 * 2**30
    assert recipe.tensorrt.pools == {"TACTIC": 1024}
    assert recipe.latency is None
    assert recipe.export is not None
    assert recipe.export.prune is not None
    assert recipe.export.prune.ratio == 0.0
    written = json.loads(json.dumps(to_table(recipe)))
    assert make(EngineRecipe, read_table(EngineRecipe, written, "t")) == recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batchsize = 4", "there is no option 'batchsize' (did you mean 'batch_size'?)."),
        ("seed = 1", "(did you mean 'data.seed' or 'optimize.seed'?)."),
        ("model = ''", "'model' is an empty text"),
        ('output = "o\\u0000"', "no path or name holds a NUL"),
        ('[data]\nverify_data = "v\\u0000:f"', "no path or name holds a NUL"),
        ('[export.source]\ntarget = "a:b\\u0000"', "no path or name holds a NUL"),
        ("[data]\npreprocess.file = 3", "'data.preprocess.file' is a path, not 3"),
        ("[tensorrt]\nworkspace = -1", "'tensorrt.workspace' is at least 0, not -1"),
        ("[tensorrt]\nworkspace = '99999999999999999999GiB'", "a size beyond 64 bits"),
        ("[tensorrt]\npools = {TACTIC = -1}", "'tensorrt.pools' is at least 0, not -1"),
        ("[tensorrt]\npools = ['TACTIC=99999999999999999999GiB']", "a size beyond 64 bits"),
        ("[data]\nseed = 99999999999999999999", "beyond 64 bits"),
        ("batch_size = 99999999999999999999", "beyond 64 bits"),
        ("float_patterns = 'Add'", 'is a list, not a text; write float_patterns = ["Add"]'),
        ("[tensorrt]\nopt-level = 3", "did you mean 'tensorrt.optimization_level'?"),
        ("min_sqnr = 3", "did you mean 'gate.min_sqnr'?"),
        ("batch_size = 'four'", "'batch_size' is a whole number, not a text"),
        ("batch_size = 0", "'batch_size' is at least 1, not 0"),
        ("int8 = 1", "'int8' is true or false, not a whole number"),
        ("data = 'd.npz'", "it is a table, [data]"),
        ("[calibrate]\nmethod = 'entropi'", "did you mean 'entropy'?"),
        ("[tune]\nenabled = 3", "'tune.enabled' is true or false"),
        ("[data.preprocess]\nsclae = 1", "did you mean 'data.preprocess.scale'?"),
        ("not toml", "is not TOML"),
    ],
)
def test_mistakes_in_a_file_name_file_key_and_what_was_meant(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    path = files[0].parent / "wrong.toml"
    path.write_text(text)
    sentence = trtbuild(capsys, "engine", files[0], "--recipe", path).sentence
    assert "wrong.toml" in sentence
    assert told in sentence


def test_a_byte_order_mark_in_front_of_a_file_is_passed_over(tmp_path) -> None:
    (tmp_path / "b.toml").write_bytes(b"\xef\xbb\xbfint8 = true\r\n")
    assert read_toml(tmp_path / "b.toml", "recipe") == {"int8": True}


def test_paths_are_relative_to_the_file_and_the_command_line_wins(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    path = model.parent / "build.toml"
    path.write_text(
        f'model = "{model.name}"\nint8 = true\noutput = "out"\nbatch_size = 3\n'
        f'[data]\ndata = "{data.name}"\n[latency]\nenabled = false\n[gate]\nmin_sqnr = 90\n'
    )
    done = trtbuild(capsys, "engine", "--recipe", path, "--no-tune", "--json")
    assert done.code == 1, done.err
    recipe = json.loads((out / "net.manifest.json").read_text())["recipe"]
    assert recipe["model"] == f"../{model.name}"
    assert recipe["data"]["data"] == f"../{data.name}"
    assert (recipe["batch_size"], recipe["latency"]) == (3, {"enabled": False})
    won = trtbuild(
        *(capsys, "engine", "--recipe", path, "--no-tune", "--min-sqnr", "5", "--batch-size", "4"),
        "--json",
    )
    assert won.code == 0
    assert won.json["recipe"]["batch_size"] == 4


def uncommented(text: str) -> list[str]:
    return [line[2:] for line in text.splitlines() if re.match(r"# [a-z_0-9]+ = ", line)]


def test_init_writes_a_recipe_that_holds_as_it_is_and_with_every_line(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, _ = files
    path = model.parent / "build.toml"
    assert trtbuild(capsys, "init", model, "-o", path).code == 0
    assert "exists already" in trtbuild(capsys, "init", model, "-o", path).sentence
    text = path.read_text()
    assert "#   x: float32 [" in text
    plain = make(EngineRecipe, read_table(EngineRecipe, read_toml(path, "recipe"), str(path)))
    assert plain == EngineRecipe(model=Path(model.name))
    lines = text.splitlines()
    names = [name.rpartition(".")[2] for name in dotted_names(EngineRecipe)]
    assert {line.split(" = ")[0] for line in uncommented(text)} <= {*names, "enabled", "file"}
    for number, line in enumerate(lines):
        if re.match(r"# (?!file)[a-z_0-9]+ = ", line):
            path.write_text("\n".join([*lines[:number], line[2:], *lines[number + 1 :]]))
            values = read_table(EngineRecipe, read_toml(path, "recipe"), str(path))
            if not line.startswith("# lock"):  # valid only with a timing cache
                make(EngineRecipe, values)
    path.write_text(text)
    done = trtbuild(capsys, "engine", "--recipe", path, "--data", data, "--dry-run", "-o", files[2])
    assert done.code == 0, done.err


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    plan = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, "--dry-run", "--json"),
        *("--backend", "onnxruntime"),
    ).json
    assert not out.exists()
    written = {Path(name).name for name in plan["writes"]}
    done = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, "--no-latency", *FAST),
        *("--backend", "onnxruntime"),
    )
    assert done.code == 0
    assert written == {file.name for file in out.iterdir()}


@pytest.mark.parametrize(
    ("options", "chosen", "searched"),
    [
        ((), True, False),
        (("--tune", "--min-sqnr", "20"), True, True),
        (("--tune", "--min-sqnr", "20", "--calibrator", "mse"), False, True),
        (("--tune", "--min-sqnr", "20", "--weights-only"), False, False),
    ],
)
def test_a_dry_run_names_the_stages_that_its_build_has(
    files: tuple[Path, ...],
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    chosen: bool,
    searched: bool,
) -> None:
    model, data, out = files
    stages = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, "--dry-run", "--json"),
        *("--backend", "onnxruntime", *options),
    ).json["stages"]
    assert "calibrate" in stages
    assert any(stage.startswith("choose ranges") for stage in stages) == chosen
    assert any(stage.startswith("search") for stage in stages) == searched


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--data", "absent.npz"), "absent.npz"),
        (("--calibration", "absent.json"), "absent.json"),
        (("--report", "{model}"), "which is read and would be overwritten"),
        (("-o", "{model}/out"), "is not a writable folder"),
        (("--only", "nopass"), "there is no graph pass 'nopass'"),
        (("--float", "nosuch*"), "matches no node"),
        (("--float-group", "nosuch"), "no group of Q/DQ"),
        (("--float", "Conv", "--float", "Gemm"), "nothing of"),
        (("--calibrator", "mse", "--percentile", "99"), "percentile"),
        (("--calibrator", "entropy-tensorrt", "--percentile", "99"), "percentile"),
        (("--max-metric-drop", "1"), "trtbuild verify --metric"),
    ],
)
def test_a_dry_run_refuses_paths_that_cannot_be(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], options: Any, told: str
) -> None:
    model, data, out = files
    given = [text.format(model=model) for text in options]
    sentence = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, "--dry-run", *given)
    ).sentence
    assert told in sentence


def test_a_dry_run_reads_the_network(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    model.write_bytes(b"no network")
    options = ("--int8", "--data", data, "-o", out, "--dry-run")
    assert "net.onnx" in trtbuild(capsys, "engine", model, *options).sentence


@pytest.mark.parametrize(
    ("given", "told"), [((), "no data was given"), (("--verify-data", "{data}"), "give --data")]
)
def test_a_dry_run_refuses_what_has_no_data(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], given: Any, told: str
) -> None:
    model, data, out = files
    named = [text.format(data=data) for text in given]
    assert (
        told in trtbuild(capsys, "engine", model, "--int8", *named, "-o", out, "--dry-run").sentence
    )


def test_a_dry_run_refuses_a_limit_on_top1_where_files_bring_no_labels(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, out = files
    asked = ("--int8", "--max-top1-drop", 1, "-o", out, "--dry-run")
    assert "--labels" in trtbuild(capsys, "engine", model, "--data", data, *asked).sentence
    (model.parent / "own.py").write_text("def samples():\n    yield from ()\n")
    monkeypatch.chdir(model.parent)
    # Python code may give each sample its class
    own = trtbuild(capsys, "engine", model, "--data", "own.py:samples", *asked)
    assert own.code == 0


def test_a_dry_run_lists_every_file_that_is_read_once(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    folder = model.parent
    (folder / "pixels.toml").write_text("scale = 1.0\n")
    recipe = folder / "build.toml"
    recipe.write_text(f'[data]\nverify_data = "{data.name}"\npreprocess.file = "pixels.toml"\n')
    plan = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, "--dry-run", "--json"),
        *("--recipe", recipe),
    ).json
    wanted = [model, data, recipe, folder / "pixels.toml"]
    assert plan["reads"] == [str(path) for path in wanted]


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--dry-run", "--weights", "x.pt")])
def test_a_network_needs_a_name(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    done = trtbuild(capsys, "engine", "", "--int8", "--data", files[1], *options)
    assert "name the float network" in done.sentence


def test_rebuild_gives_the_same_bytes_and_names_what_differs(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    options = ("--backend", "onnxruntime", "--no-latency")
    built = trtbuild(capsys, "engine", model, "--int8", "--data", data, "-o", out, *options)
    assert built.code == 0
    manifest = out / "net.manifest.json"
    again = trtbuild(capsys, "rebuild", out, "--json")
    assert again.code == 0, again.err
    assert (out / "rebuilt" / "net.manifest.json").exists()
    assert again.json["same_bytes"] is True
    assert again.json["verdicts"] == ["NOT JUDGED", "NOT JUDGED"]
    assert again.json["differences"] == []
    for name in ("net.int8.onnx", "net.onnxruntime.onnx"):
        told = trtbuild(capsys, "rebuild", out / name)
        assert told.code == 2
        assert f"`trtbuild rebuild {manifest}`" in told.sentence
    assert "another folder" in trtbuild(capsys, "rebuild", manifest, "-o", out).sentence
    arrays = CNN.arrays()
    moved = model.parent / "moved.npz"
    np.savez(moved, **{name: 2 * array for name, array in arrays.items()})
    other = trtbuild(capsys, "rebuild", manifest, "--data", moved, "--json")
    assert other.code == 1
    kinds = {(entry["kind"], entry["name"]) for entry in other.json["differences"]}
    assert ("data", "calibration_digest") in kinds
    assert ("file", "net.int8.onnx.digest") in kinds
    nodes = other.json["networks"]["net.int8.onnx"]["nodes"]
    ratios = {c["ratio"] for n in nodes for c in n["changes"] if c["what"] == "range"}
    assert ratios, "ranges follow the data"
    assert min(ratios) > 1.5
    assert other.json["unexplained"] == ""
    assert all(figure["first"] is not None for figure in other.json["figures"])
    sqnr = next(figure for figure in other.json["figures"] if "engine: SQNR" in figure["name"])
    assert sqnr["first"] != sqnr["second"]


def test_rebuild_takes_everything_that_has_moved(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    folder = model.parent
    inputs = CNN.arrays()
    verify = folder / "verify.npz"
    np.savez(verify, **{name: array[::-1][:4] + 1 for name, array in inputs.items()})
    labels = folder / "labels.csv"
    labels.write_text("label\n" + "1\n" * 4)
    # a rule by name: on a busy machine, the search for ranges may end at its limit of time
    options = ("--backend", "onnxruntime", "--no-latency", "--no-tune", "--calibrator", "entropy")
    built = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", out, *options),
        *("--verify-data", verify, "--labels", labels),
    )
    assert built.code == 0, built.err
    places = {"--model": model, "--data": data, "--verify-data": verify, "--labels": labels}
    moved: list[object] = []
    for number, (flag, place) in enumerate(places.items()):
        moved += [flag, new := folder / f"moved_{number}" / place.name]
        new.parent.mkdir()
        place.rename(new)
    manifest = out / "net.manifest.json"
    for number, (flag, place) in enumerate(places.items()):
        sentence = trtbuild(capsys, "rebuild", manifest, *moved[: 2 * number]).sentence
        assert f"{place.name}' does not exist; name its new place with {flag}" in sentence
    again = trtbuild(capsys, "rebuild", manifest, *moved, "--json")
    assert again.code == 0, again.err
    assert again.json["differences"] == []
    strict = json.loads(manifest.read_text())
    strict["ruling"]["word"] = "SHIP"
    manifest.write_text(json.dumps(strict))
    same = trtbuild(capsys, "rebuild", manifest, *moved)
    assert (same.code, "verdict: was SHIP, is " in same.out) == (0, True)
    assert "engine: SQNR of" in same.out


def test_a_network_of_another_name_is_the_same_build(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = files
    options = ("--backend", "onnxruntime", "--no-latency", "--calibrator", "entropy")
    assert (
        trtbuild(capsys, "engine", model, "--int8", "--data", data, "-o", out, *options).code == 0
    )
    other = model.rename(model.parent / "renamed.onnx")
    manifest = out / "net.manifest.json"
    again = trtbuild(capsys, "rebuild", manifest, "--model", other, "--json")
    assert (again.code, again.json["same_bytes"], again.json["differences"]) == (0, True, [])
    moved = model.parent / "moved.npz"
    np.savez(moved, **{name: 2 * array for name, array in CNN.arrays().items()})
    differs = ("rebuild", manifest, "--model", other, "--data", moved)
    assert set(trtbuild(capsys, *differs, "--json").json["networks"]) == {
        "net.int8.onnx",
        "net.onnxruntime.onnx",
    }
    assert "net.int8.onnx, A as it was" in trtbuild(capsys, *differs).out


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"time_was_over": True}, "a time limit ended"),
        (
            {"float_layers": ["a"], "ranked_by": "milliseconds a run"},
            "by what they gain for their measured",
        ),
        ({"float_layers": ["a"], "ranked_by": "multiply-accumulates"}, "another processor"),
        ({}, "another processor"),
    ],
)
def test_why_a_network_differs_though_nothing_else_does(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], details: dict, said: str
) -> None:
    model, data, out = files
    options = ("--backend", "onnxruntime", "--no-latency", "--calibrator", "entropy")
    assert (
        trtbuild(capsys, "engine", model, "--int8", "--data", data, "-o", out, *options).code == 0
    )
    manifest = out / "net.manifest.json"
    record = json.loads(manifest.read_text())
    record["files"]["net.int8.onnx"]["digest"] = "sha256:" + "0" * 64
    record["stages"][-1]["details"].update(details)
    manifest.write_text(json.dumps(record))
    again = trtbuild(capsys, "rebuild", manifest, "--json")
    assert again.code == 1
    assert said in again.json["unexplained"]


def test_a_manifest_without_a_recipe_is_refused(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path = files[0].parent / "old.manifest.json"
    path.write_text(json.dumps(manifests.manifest({"file": "old.plan"})))
    assert "holds no recipe" in trtbuild(capsys, "rebuild", path).sentence


def test_help_imports_nothing_heavy() -> None:
    groups = ("calibrate run", "calibrate merge", "cache show", "cache convert")
    lines = [[*command.split(), "--help"] for command in ("", *_COMMANDS, *groups)]
    code = (
        "import sys\nfrom trtbuild.cli.main import run\n"
        f"for line in {lines}:\n    assert run(line) == 0\n"
        f"    assert not [name for name in {HEAVY} if name in sys.modules], line"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize(("name", "told"), [("Conv_c", ""), ("Conv", "Conv"), ("Conv_*", "Conv_*")])
def test_names_of_groups_are_never_read_as_patterns(
    files: tuple[Path, ...], capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    done = trtbuild(capsys, "quantize", files[0], "--list", "--float-group", name, "--json")
    if told:
        assert told in done.sentence
        return
    assert not next(n["int8"] for n in done.json["layers"] if n["node"] == name)


def test_a_script_in_a_recipe_file_lies_beside_it(files, capsys, tmp_path, monkeypatch) -> None:
    model, data, out = files
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "reader.py").write_text(
        f"import numpy as np\ndef rows():\n    yield dict(np.load({str(data)!r}))\n"
    )
    (folder / "r.toml").write_text('[data]\ndata = "reader.py:rows"\n')
    monkeypatch.chdir(tmp_path)
    command = ("engine", model, "--int8", "--recipe", folder / "r.toml", "-o", out, "--no-latency")
    done = trtbuild(capsys, *command)
    assert done.code == 0, done.err
    manifest = json.loads((out / f"{model.stem}.manifest.json").read_text())
    assert manifest["recipe"]["data"]["data"] == "../recipes/reader.py:rows"
    script = folder / "reader.py"
    refused = trtbuild(capsys, *command, "--junit", script)
    assert refused.code == 2
    assert "is the data" in refused.err


def test_rebuild_refuses_another_network_for_one_that_is_exported(files, capsys, tmp_path) -> None:
    model, data, out = files
    command = ("engine", model, "--int8", "--data", data, "-o", out, "--no-latency")
    assert trtbuild(capsys, *command).code == 0
    path = out / f"{model.stem}.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["recipe"]["export"] = {"source": {"target": "nets:make"}}
    path.write_text(json.dumps(manifest))
    done = trtbuild(capsys, "rebuild", path, "--model", model)
    assert done.code == 2
    assert "exported from 'nets:make'" in done.err
