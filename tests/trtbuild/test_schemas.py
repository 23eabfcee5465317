"""The published schemas agree with the code, and the commands' files satisfy them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest

pytest.importorskip("torch", reason="types of the PyTorch front end need torch")

from tests.command import trtbuild
from tests.json_documents import DOCS, commands_with_json, documented, valid
from tests.trtbuild.runtime.tensorrt.test_inspector import FORM_10
from tests.trtbuild.verification.small_network import written
from tools.write_schemas import DOCUMENTS, schemas
from trtbuild.cli.main import run
from trtbuild.json_codec import Document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUBLISHED = DOCS / "schemas"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_published_schema_is_that_of_the_code(name: str) -> None:
    schema = schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    path = PUBLISHED / f"{name}.v{schema_version(name)}.schema.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written == schema, "run: python tools/write_schemas.py docs/schemas"


def test_the_page_names_the_schema_of_every_command_with_json() -> None:
    assert list(documented()) == commands_with_json()
    page = (DOCS / "stability.md").read_text(encoding="utf-8")
    written = {path.name for path in PUBLISHED.iterdir()}
    assert written == {f"{name}.v{schema_version(name)}.schema.json" for name in schemas()}
    assert [name for name in written if f"](schemas/{name})" not in page] == []


def schema_version(name: str) -> int:
    return int(schemas()[name]["properties"]["version"]["const"])


def test_every_document_has_a_schema() -> None:
    assert set(Document.__subclasses__()) == set(DOCUMENTS)


def test_descriptions_are_those_of_the_docstrings() -> None:
    found = schemas()["trtbuild.cache_diff"]
    assert found["description"] == "The differences of two caches."
    changed = found["properties"]["changed"]["items"]["properties"]
    assert changed["first_scale"]["description"] == "its scale in both."
    assert changed["ratio"]["description"].startswith("second scale / first scale; infinite")
    named = schemas()["trtbuild.cache"]["properties"]["tensorrt_version"]["description"]
    assert named.endswith("empty for the legacy calibrator.")  # its second line


@pytest.mark.parametrize("name", sorted(schemas()))
def test_every_field_or_its_object_is_described(name: str) -> None:
    assert list(undescribed(schemas()[name], name)) == []


def undescribed(schema: dict, where: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    silent = [key for key, one in properties.items() if "description" not in one]
    if "description" not in schema:
        yield from (f"{where}.{key}" for key in silent)
    inner = [(f"{where}.{key}", one) for key, one in properties.items()]
    inner += [(where, one) for one in (*schema.get("anyOf", ()), *schema.get("prefixItems", ()))]
    inner += [(where, schema[key]) for key in ("items", "additionalProperties") if key in schema]
    for place, one in inner:
        if isinstance(one, dict):
            yield from undescribed(one, place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = written(tmp_path_factory.mktemp("networks"), 16)
    np.savez(folder / "labels.npz", y=np.arange(16) % 6)
    return folder


def test_a_saved_verification_with_everything_satisfies_its_schema(folder: Path, capsys) -> None:
    command = [
        "verify",
        "float.onnx",
        "int8.onnx",
        "--data",
        "images.npz",
        "--labels",
        "labels.npz",
    ]
    paths = [str(folder / word) if "." in word else word for word in command]
    diagnosis = ["--layers", "--sensitivity", "--bisect", "--min-sqnr", "60", "--json", "--metric"]
    code = run([*paths, *diagnosis, "tests.trtbuild.test_schemas:largest"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1
    valid(found)
    with pytest.raises(jsonschema.ValidationError):
        valid({**found, "surprise": 1})


def largest(outputs, labels, names) -> np.ndarray:
    return outputs["logits"].max(1)


def test_latencies_and_a_baseline_satisfy_their_schemas(folder: Path, capsys) -> None:
    engine, baseline = str(folder / "int8.onnx"), folder / "baseline.json"
    short = ["--seconds", "0.1", "--warmup-ms", "1", "--json"]
    assert run(["bench", engine, "--save-baseline", str(baseline), *short]) == 0
    valid(json.loads(baseline.read_text()))
    capsys.readouterr()
    run(["bench", engine, "--against", str(folder / "float.onnx"), *short])
    valid(json.loads(capsys.readouterr().out))


def test_ranges_of_a_run_and_of_its_parts_satisfy_their_schema(folder: Path, capsys) -> None:
    given = ["calibrate", str(folder / "float.onnx"), "--data", str(folder / "images.npz")]
    parts = [str(folder / f"{number}.json") for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert run([*given, "--shard", f"{number}/2", "-o", part, "--quiet"]) == 0
    merged = ["calibrate", "merge", *parts]
    stops = [*given, "--until-stable", "1%", "--all-methods"]
    for words, has_data in ((given, True), (stops, True), (merged, False)):
        capsys.readouterr()
        assert run([*words, "-o", str(folder / "ranges.json"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["schema"] == "trtbuild.ranges"
        assert (found["data"] is not None) == has_data
        valid(found)


def test_two_calibrations_satisfy_their_schema(folder: Path, tmp_path: Path, capsys) -> None:
    ranges = tmp_path / "ranges.json"
    given = ["calibrate", str(folder / "float.onnx"), "--data", str(folder / "images.npz")]
    assert run([*given, "-o", str(ranges), "--quiet"]) == 0
    [name, *_] = json.loads(ranges.read_text())["tensors"]
    table = tmp_path / "table.cache"
    table.write_text(f"{name} 0.0\nother 2.0\n")
    for second, agreement in (("minmax", "far"), (str(table), "unusable")):
        capsys.readouterr()
        assert run(["crosscheck", str(ranges), second, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        valid(found)
        assert agreement in {one["agreement"] for one in found["tensors"]}


def test_what_an_engine_runs_in_satisfies_its_schema(folder: Path, tmp_path: Path, capsys) -> None:
    layers, out = tmp_path / "layers.json", tmp_path / "out"
    layers.write_text(json.dumps(FORM_10))
    build = ["engine", str(folder / "float.onnx"), "--data", str(folder / "images.npz"), "--int8"]
    build += ["--backend", "onnxruntime", "--no-latency", "--effort", "fast", "--quiet"]
    assert run([*build, "-o", str(out)]) == 0
    for engine, part in ((layers, "layers"), (out / "float.onnxruntime.onnx", "nodes")):
        capsys.readouterr()
        assert run(["inspect", str(engine), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        valid(found)
        assert found[part]


def test_a_quantized_network_satisfies_its_schema(folder: Path, tmp_path: Path, capsys) -> None:
    model, ranges = folder / "float.onnx", tmp_path / "ranges.json"
    data = ("--data", folder / "images.npz", "--calibrator", "minmax")
    assert trtbuild(capsys, "calibrate", model, *data, "-o", ranges).code == 0
    output = tmp_path / "int8.onnx"
    given = ("--calibration", ranges, "-o", output, "--float", "Relu", "--json")
    found = trtbuild(capsys, "quantize", model, *given).json
    assert found["files"] == [str(output)]
    assert {one["op_type"] for one in found["layers"] if one["int8"]} >= {"Conv"}
    assert found["float_patterns"] == list(found["idle_patterns"]) == ["Relu"]


def test_a_recipe_file_satisfies_its_schema(folder: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "build.toml"
    found = trtbuild(capsys, "init", folder / "float.onnx", "-o", file, "--json").json
    assert found == {"schema": "trtbuild.recipe_file", "version": 1, "file": str(file)}


def test_a_machine_satisfies_its_schema(capsys) -> None:
    run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    valid(found)
    assert found["schema"] == "trtbuild.doctor"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["verify", "nothing.onnx", "nothing.plan", "--data", "x.npz"], "ModelError"),
        (["verify", "--jso"], "UsageError"),
        (["engine", "nothing.onnx"], "OptionError"),
    ],
)
def test_what_goes_wrong_is_a_record_too(words: list[str], error: str, capsys) -> None:
    code = run([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    valid(found)
    assert (found["schema"], found["error"], found["exit_code"]) == ("trtbuild.error", error, code)
    assert code == 2
