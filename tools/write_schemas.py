"""Write the JSON schemas of what commands print with ``--json``, and of JSON files, made from dataclasses.

Usage: ``python tools/write_schemas.py docs/schemas``; a test compares the published files with the code.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect as python_inspect
import json
import sys
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from calibrators.crosscheck import Comparison
from trtbuild.artifact import EarlyStop
from trtbuild.cli import failure
from trtbuild.data.skipped import Skipped
from trtbuild.data.survey import InputSurvey
from trtbuild.diff import compare as diff
from trtbuild.files import make_directory, write_text
from trtbuild.jobs import (
    advise,
    bench,
    cache,
    calibrate,
    check,
    crosscheck,
    demo,
    doctor,
    dry_run,
    export,
    fleet,
    inspect,
    optimize,
    prune,
    qat,
    quantize,
    rebuild,
    recipe_file,
    triton,
    verify,
)
from trtbuild.jobs.compress import record as compress_record
from trtbuild.json_codec import Document, json_fields
from trtbuild.latency import baseline, layer_times
from trtbuild.latency.conditions import Conditions, Device
from trtbuild.latency.limits import SpeedFinding
from trtbuild.latency.regress import LatencyVerdict
from trtbuild.latency.stats import LatencySummary
from trtbuild.verification import compare
from trtbuild.verification.ruling import Ruling

__all__ = ["schema_of", "schemas"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]}
_PLAIN: dict[Any, dict[str, Any]] = {
    float: _NUMBER,
    np.float32: _NUMBER,
    int: {"type": "integer"},
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": "boolean"},
    Any: {},
}

DOCUMENTS: tuple[type[Document], ...] = (
    cache.CacheContent,
    cache.CacheDiff,
    cache.Converted,
    demo.DemoFigures,
    dry_run.BuildPlan,
    export.Export,
    optimize.Optimization,
    optimize.PassList,
    prune.ChannelGroups,
    prune.PruneOutcome,
    qat.QatOutcome,
    quantize.PlacementList,
    quantize.QuantizedFile,
    recipe_file.RecipeFile,
    triton.TritonModel,
)


def schemas() -> dict[str, dict[str, Any]]:
    """Return name -> schema; the name is the value of the field ``schema``."""
    latency = {
        "ruling": _schema(Ruling | None),
        "latencies": _array(schema_of(LatencySummary)),
        "verdicts": _array(schema_of(LatencyVerdict)),
        "speed": _array(schema_of(SpeedFinding)),
        "device": schema_of(Device),
        "conditions": schema_of(Conditions),
        "remarks": _array({"type": "string"}),
        "data": {"type": "string"},
    }
    kept = schema_of(baseline.Baseline)
    kept["required"].remove("inputs")  # older files of this version lack it
    return {
        **{one.SCHEMA: _named(schema_of(one), one.SCHEMA, one.VERSION) for one in DOCUMENTS},
        verify.SCHEMA: _named(schema_of(verify.Verification), verify.SCHEMA, verify.VERSION),
        compare.SCHEMA: _named(schema_of(compare.Comparison), compare.SCHEMA, compare.VERSION),
        baseline.SCHEMA: _named(kept, baseline.SCHEMA, baseline.VERSION),
        advise.SCHEMA: _named(schema_of(advise.DataAdvice), advise.SCHEMA, advise.VERSION),
        fleet.SCHEMA: _named(schema_of(fleet.Fleet), fleet.SCHEMA, fleet.VERSION),
        diff.SCHEMA: _diff(),
        layer_times.SCHEMA: _named(
            schema_of(layer_times.LayerTimes), layer_times.SCHEMA, layer_times.VERSION
        ),
        failure.SCHEMA: _named(schema_of(failure.Failure), failure.SCHEMA, failure.VERSION),
        compress_record.SCHEMA: _named(
            schema_of(compress_record.Compression), compress_record.SCHEMA, compress_record.VERSION
        ),
        check.SCHEMA: _named(schema_of(check.NetworkCheck), check.SCHEMA, check.VERSION),
        doctor.SCHEMA: _named(schema_of(doctor.Checkup), doctor.SCHEMA, doctor.VERSION),
        calibrate.SCHEMA: _ranges(),
        crosscheck.SCHEMA: _crosschecked(),
        inspect.SCHEMA: _inspected(),
        rebuild.SCHEMA: _rebuilt(),
        bench.SCHEMA: _named(_object(latency, tuple(latency)), bench.SCHEMA, bench.VERSION),
    }


def _diff() -> dict[str, Any]:
    found = schema_of(diff.EngineDiff)
    found["properties"] = {"equal": {"type": "boolean"}, **found["properties"]}
    found["required"] = ["equal", *found["required"]]
    return _named(found, diff.SCHEMA, diff.VERSION)


def _ranges() -> dict[str, Any]:
    text, number, count = _PLAIN[str], _PLAIN[float], _PLAIN[int]
    data = {
        "used": _mapping(count),
        "inputs": _mapping(schema_of(InputSurvey)),
        "passed_over": _array(schema_of(Skipped)),
        "warnings": _array(text),
        "repeated": _array(text),
        "spoilt": _array(text),
    }
    figures = {"amax": number, "clipped_share": number, "sqnr_db": number}
    methods = _mapping(_mapping(_object(figures, tuple(figures))))
    parts = {
        "files": _array(text),
        "method": text,
        "num_samples": count,
        "amax": _mapping(number),
        "data": _or_null(_object(data, tuple(data))),
        "spread": _mapping(number),
        "until_stable": _schema(EarlyStop | None),
        "methods": _or_null(methods),
    }
    return _named(_object(parts, tuple(parts)), calibrate.SCHEMA, calibrate.VERSION)


def _crosschecked() -> dict[str, Any]:
    side = _object({"name": _PLAIN[str], "kind": _PLAIN[str]}, ("name", "kind"))
    tensor = _with(schema_of(Comparison), ratio=_NUMBER, flagged=_PLAIN[bool])
    names = _array(_PLAIN[str])
    parts = {
        "first": side,
        "second": side,
        "tensors": _array(tensor),
        "only_first": names,
        "only_second": names,
        "plots": names,
    }
    return _named(_object(parts, tuple(parts)), crosscheck.SCHEMA, crosscheck.VERSION)


def _inspected() -> dict[str, Any]:
    text = _PLAIN[str]
    layer = {
        **dict.fromkeys(("name", "kind", "precision", "tactic"), text),
        "nodes": _array(text),
        "reformat": _PLAIN[bool],
    }
    parts = {
        "precisions": _mapping(_PLAIN[int]),
        "reformats": _PLAIN[int],
        "detailed": _PLAIN[bool],
        "layers": _array(_object(layer, tuple(layer))),
        "not_opened": text,
        "nodes": _array(_with(schema_of(inspect.NodePrecision), as_asked=_PLAIN[bool])),
    }
    return _named(_object(parts, tuple(parts)), inspect.SCHEMA, inspect.VERSION)


def _rebuilt() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    difference = {"kind": text, "name": text, "before": {}, "after": {}}  # values of manifests
    network = _diff()
    del network["$schema"]
    parts = {
        "manifest": text,
        "same_bytes": {"type": "boolean"},
        "differences": _array(_object(difference, tuple(difference))),
        "networks": _mapping(network),
        "unexplained": text,
        "verdicts": _array(text),
        "figures": _array(schema_of(diff.FigureChange)),
    }
    return _named(_object(parts, tuple(parts)), rebuild.SCHEMA, rebuild.VERSION)


def schema_of(cls: type) -> dict[str, Any]:
    """Return the schema of a dataclass as `trtbuild.json_codec.encode` writes it."""
    hints = get_type_hints(cls, localns=_for_type_checker(cls.__module__))
    fields = [field.name for field in json_fields(cls)]
    return _object({name: _schema(hints[name]) for name in fields}, tuple(fields))


@functools.cache
def _for_type_checker(module: str) -> dict[str, Any]:
    """What a module imports for the type checker only, which its annotations name."""
    source = ast.parse(python_inspect.getsource(sys.modules[module]))
    blocks = [node for node in source.body if isinstance(node, ast.If)]
    names: dict[str, Any] = {}
    for node in (one for block in blocks for one in block.body):
        if isinstance(node, ast.Import):
            names |= {
                one.asname or one.name: importlib.import_module(one.name) for one in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found = importlib.import_module(str(node.module))
            names |= {one.asname or one.name: getattr(found, one.name) for one in node.names}
    return names


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _or_null(_schema(arguments[0]))
    if origin is tuple:
        return _tuple(arguments)
    if origin in (dict, Mapping):
        return _mapping(_schema(arguments[1]))
    if origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return {"enum": list(arguments) or [str(member) for member in hint]}
    return schema_of(hint) if dataclasses.is_dataclass(hint) else _PLAIN[hint]  # type: ignore[arg-type]


def _tuple(items: tuple[Any, ...]) -> dict[str, Any]:
    if items[-1] is Ellipsis:
        return _array(_schema(items[0]))
    return {"type": "array", "prefixItems": [_schema(item) for item in items],
            "minItems": len(items), "maxItems": len(items)}  # fmt: skip


def _mapping(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _with(schema: dict[str, Any], **added: dict[str, Any]) -> dict[str, Any]:
    """An object's schema with more fields at its end."""
    properties = {**schema["properties"], **added}
    return _object(properties, tuple(properties))


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _named(schema: dict[str, Any], name: str, version: int) -> dict[str, Any]:
    head = {"schema": {"const": name}, "version": {"const": version}}
    return {
        "$schema": _DIALECT,
        "title": name,
        **_object({**head, **schema["properties"]}, (*head, *schema["required"])),
    }


def _write(folder: Path) -> None:
    make_directory(folder)
    for name, schema in schemas().items():
        version = schema["properties"]["version"]["const"]
        path = folder / f"{name}.v{version}.schema.json"
        write_text(path, json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
