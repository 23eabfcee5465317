"""Write the JSON schemas of what commands print with ``--json``, and of JSON files, made from dataclasses.

A description is the text of the class or field in the class's docstring.

Usage: ``python tools/write_schemas.py docs/schemas``; a test compares the published files with the code.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect as python_inspect
import json
import re
import sys
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from trtbuild.cli import failure
from trtbuild.diff.compare import EngineDiff
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
from trtbuild.jobs.compress.record import Compression
from trtbuild.json_codec import Document, json_fields
from trtbuild.latency.baseline import Baseline
from trtbuild.latency.layer_times import LayerTimes
from trtbuild.verification.compare import Comparison

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
    Baseline,
    Comparison,
    Compression,
    EngineDiff,
    LayerTimes,
    advise.DataAdvice,
    bench.LatencyRecord,
    cache.CacheContent,
    cache.CacheDiff,
    cache.Converted,
    calibrate.Ranges,
    check.NetworkCheck,
    crosscheck.CrosscheckRecord,
    demo.DemoFigures,
    doctor.Checkup,
    dry_run.BuildPlan,
    export.Export,
    fleet.Fleet,
    inspect.InspectionRecord,
    optimize.Optimization,
    optimize.PassList,
    prune.ChannelGroups,
    prune.PruneOutcome,
    qat.QatOutcome,
    quantize.PlacementList,
    quantize.QuantizedFile,
    rebuild.Rebuilt,
    recipe_file.RecipeFile,
    triton.TritonModel,
    verify.Verification,
)


def schemas() -> dict[str, dict[str, Any]]:
    """Return name -> schema; the name is the value of the field ``schema``."""
    documents = {one.SCHEMA: _named(one, one.SCHEMA, one.VERSION) for one in DOCUMENTS}
    documents[Baseline.SCHEMA]["required"].remove("inputs")  # older files of this version lack it
    failed = _named(failure.Failure, failure.SCHEMA, failure.VERSION)
    return {**documents, failure.SCHEMA: failed}


def schema_of(cls: type) -> dict[str, Any]:
    """Return the schema of a dataclass as `trtbuild.json_codec.encode` writes it."""
    hints = get_type_hints(cls, localns=_for_type_checker(cls.__module__))
    about, said = _described(cls)
    properties = {
        field.name: {**_schema(hints[field.name]), **_description(said.get(field.name, ""))}
        for field in json_fields(cls)
    }
    return {**_description(about), **_object(properties, tuple(properties))}


def _described(cls: type) -> tuple[str, dict[str, str]]:
    """The first sentence of a dataclass's docstring, and what its ``Attributes:`` say of each field."""
    text = python_inspect.getdoc(cls) or ""
    about = "" if text.startswith(f"{cls.__name__}(") else text.partition("\n\n")[0]
    entries = re.findall(
        r"^    (\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)",
        text.partition("\nAttributes:\n")[2],
        re.MULTILINE,
    )
    return about, {name: said for names, said in entries for name in names.split(", ")}


def _description(text: str) -> dict[str, str]:
    plain = " ".join(text.split()).replace("``", "`")
    return {"description": plain} if plain else {}


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


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _named(cls: type, name: str, version: int) -> dict[str, Any]:
    schema = schema_of(cls)
    head = {"schema": {"const": name}, "version": {"const": version}}
    whole = _object({**head, **schema["properties"]}, (*head, *schema["required"]))
    return {"$schema": _DIALECT, "title": name, **schema, **whole}


def _write(folder: Path) -> None:
    make_directory(folder)
    for name, schema in schemas().items():
        version = schema["properties"]["version"]["const"]
        path = folder / f"{name}.v{version}.schema.json"
        write_text(path, json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
