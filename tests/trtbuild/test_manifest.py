"""The manifest: it satisfies its schema, is read back, and other files are refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from tests.command import FAST, trtbuild
from tests.models import NETWORKS
from trtbuild import (
    AskedRecord,
    DataRecord,
    InputError,
    Manifest,
    ModelRecord,
    quantize,
    read_manifest,
)
from trtbuild.files import file_digest
from trtbuild.json_codec import encode

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = json.loads((DOCS / "manifest.schema.json").read_text(encoding="utf-8"))
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def mismatches(value, schema, where="manifest"):
    """Mismatches with a schema, for the part of JSON Schema that ours uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    if "const" in schema and value != schema["const"]:
        yield f"{where} is {value!r}"
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        fits = [isinstance(value, TYPES[kind]) for kind in kinds]
        if not any(fits) or (isinstance(value, bool) and "boolean" not in kinds):
            yield f"{where} is {type(value).__name__}"
            return
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} is {value!r}"
    if isinstance(value, dict):
        yield from in_object(value, schema, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from mismatches(item, schema.get("items", {}), f"{where}[{index}]")


def in_object(value, schema, where):
    known = schema.get("properties", {})
    yield from (
        f"{where} has no {name}" for name in schema.get("required", ()) if name not in value
    )
    for name, item in value.items():
        rule = known.get(name, schema.get("additionalProperties", True))
        if rule is False:
            yield f"{where} has {name}"
        elif rule is not True:
            yield from mismatches(item, rule, f"{where}.{name}")


def build(capsys, folder, network, *options):
    model, data = NETWORKS[network].save(folder)
    done = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", folder / "out", "--json"),
        *(*FAST, *options),
    )
    assert done.code in (0, 1), done.err
    return done.json


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("opset_13", ("--no-latency", "--effort", "normal")),
        ("opset_13", ("--min-sqnr", "90", "--float", "Gemm")),
        ("bert", ("--no-latency", "--calibrator", "percentile", "--percentile", "99.9")),
        ("input_is_output", ("--no-latency",)),
        ("dims_all_dynamic", ("--no-latency",)),
    ],
)
def test_manifests_are_as_the_schema_says(network, options, tmp_path, capsys):
    manifest = build(capsys, tmp_path, network, *options)
    assert list(mismatches(manifest, SCHEMA)) == []
    written = tmp_path / "out" / "net.manifest.json"
    assert json.loads(written.read_text(encoding="utf-8")) == manifest
    assert encode(read_manifest(written)) == manifest
    assert read_manifest(str(written)) == read_manifest(written)


def test_with_labels_and_preprocessing(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "pixels.npz", x=images, y=np.arange(40) % 5)
    pixels = tmp_path / "pixels.npz"
    manifest = build(
        *(capsys, tmp_path, "opset_13", "--no-latency", "--data", pixels, "--labels", pixels),
        *("--scale", 1 / 255, "--mean", "0.5"),
    )
    assert list(mismatches(manifest, SCHEMA)) == []
    assert manifest["verification"]["engine"]["accuracy"]["output"] == "y"
    assert manifest["data"]["preprocess"]["mean"] == [0.5]


def test_the_check_of_this_test_finds_what_is_wrong(tmp_path, capsys):
    manifest = build(capsys, tmp_path, "opset_13", "--no-latency")
    for spoil in (
        lambda m: m.pop("layers"),
        lambda m: m.update(more=1),
        lambda m: m["model"].update(digest="md5:0"),
        lambda m: m["layers"][0].update(int8="yes"),
        lambda m: m["calibration"]["amax"].update(x="wide"),
    ):
        spoiled = json.loads(json.dumps(manifest))
        spoil(spoiled)
        assert list(mismatches(spoiled, SCHEMA))


def test_the_types_have_the_fields_of_the_schema():
    types = get_type_hints(Manifest)
    fields = dataclasses.fields(Manifest)
    assert {field.name for field in fields} == set(SCHEMA["properties"])
    parts = {"model": ModelRecord, "data": DataRecord, "options": AskedRecord}
    for name, part in parts.items():
        assert types[name] is part
        assert {field.name for field in dataclasses.fields(part)} == set(
            SCHEMA["properties"][name]["required"]
        )
    absent = dataclasses.MISSING
    needed = {f.name for f in fields if f.default is absent and f.default_factory is absent}
    assert needed | {"schema", "version"} == set(SCHEMA["required"])


def test_what_a_newer_trtbuild_added_is_passed_over(tmp_path, capsys):
    manifest = build(capsys, tmp_path, "opset_13", "--no-latency")
    path = tmp_path / "out" / "net.manifest.json"
    newer = {**manifest, "more": 1, "engine": {**manifest["engine"], "more": {"a": []}}}
    path.write_text(json.dumps(newer), encoding="utf-8")
    assert encode(read_manifest(path)) == manifest
    older = {name: item for name, item in manifest.items() if name in SCHEMA["required"]}
    path.write_text(json.dumps(older), encoding="utf-8")
    assert read_manifest(path).recipe is None
    path.write_text(json.dumps({**manifest, "layers": [{"node": "a"}]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"net\.manifest\.json', layers lacks the field 'op_type'"):
        read_manifest(path)


def test_the_page_explains_every_field():
    page = (DOCS / "manifest.md").read_text(encoding="utf-8")
    assert [name for name in SCHEMA["properties"] if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "not json",
        '{"schema": "another"}',
        '{"schema": "trtbuild.manifest", "version": 99}',
    ],
)
def test_what_is_no_manifest(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(InputError, match="json"):
        read_manifest(path)


def test_stages_tell_the_story(tmp_path, capsys):
    manifest = build(capsys, tmp_path, "opset_13", "--no-latency", "--effort", "normal")
    assert [stage["stage"] for stage in manifest["stages"]] == [
        *("read", "data", "optimize", "calibrate", "choose ranges", "moves", "quantize"),
        "portable form",
    ]
    data = manifest["stages"][1]["details"]
    assert set(data) == {"used", "inputs", "passed_over", "warnings", "repeated", "spoilt"}
    assert min(data["used"]["calibrate"], data["used"]["verify"]) > 0
    assert set(manifest["calibration"]["amax"]) >= {"x"}
    assert all(0 < amax < float("inf") for amax in manifest["calibration"]["amax"].values())


@pytest.mark.parametrize("there", [True, False])
def test_a_network_that_changes_while_it_is_used(tmp_path, caplog, there):
    """The manifest describes the file that was read; if the file is gone, no work is lost."""
    model, data = NETWORKS["opset_13"].save(tmp_path)
    read = file_digest(model)
    x = np.load(data)["x"]

    def batches():
        if there:
            model.write_bytes(b"another")
        else:
            model.unlink(missing_ok=True)
        yield {"x": x}

    found = quantize(model, batches, calibrator="minmax", output=tmp_path / "out")
    assert read_manifest(found.result.manifest).model.digest == read
    assert "was changed after it was read" in caplog.text
