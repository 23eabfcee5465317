"""A recipe file to fill in: every option commented out, with its help, unit and default."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.files import write_text
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.json_codec import Document
from trtbuild.model import input_specs, read_model
from trtbuild.options.fields import Kind, OptionField, groups_of, options_of
from trtbuild.options.tables import ENABLED, FILE
from trtbuild.options.values import default_text, written
from trtbuild.recipes import EngineRecipe
from trtbuild.toml_files import quoted, toml_value
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RecipeFile", "recipe_text", "write_recipe"]

# `export` is for PyTorch modules: the file is made for a network file.
_LEFT_OUT = {"export", "model", "int8"}


@dataclass(frozen=True)
class RecipeFile(Document):
    """The written recipe file."""

    SCHEMA = "trtbuild.recipe_file"

    file: Path


def write_recipe(model: Path, path: Path) -> RecipeFile:
    """Write a recipe file for the network `model`.

    Raises:
        ModelError: the network cannot be read.
        OutputError: the file cannot be written.
    """
    check_paths(named_inputs(the_network=model), [path])
    write_text(path, recipe_text(model, path.parent))
    return RecipeFile(path)


def recipe_text(model: Path, folder: Path) -> str:
    """Return a recipe file for the network `model`; paths in it are relative to `folder`.

    Raises:
        ModelError: the network cannot be read.
    """
    lines = [
        "# trtbuild engine --recipe FILE; options on the command line win.",
        "# Inputs of the network:",
        *(
            visible(f"#   {spec.name}: {spec.dtype.name} [{', '.join(map(str, spec.dims))}]")
            for spec in input_specs(read_model(model))
        ),
    ]
    place = Path(os.path.relpath(model, folder)).as_posix()
    lines += ["", f"model = {quoted(place)}", "int8 = true"]
    lines += _table(EngineRecipe, "", {})
    return "\n".join(lines) + "\n"


def _table(cls: type, prefix: str, otherwise: dict[str, Any]) -> Iterator[str]:
    """The options of a dataclass, then a table for each of its groups."""
    for field in options_of(cls):
        if prefix or field.name not in _LEFT_OUT:
            default = otherwise.get(field.name, field.default)
            yield ""
            yield from _comment(_sentence(field, default))
            yield f"# {field.name} = {_value(field, default)}"
    for part in groups_of(cls):
        if part.name in _LEFT_OUT and not prefix:
            continue
        yield from ("", f"# --- {part.group.title} ---", f"[{prefix}{part.name}]")
        if part.group.switch:
            yield from ("", *_comment(part.group.help), f"# {ENABLED} = true")
        if part.group.from_file:
            yield from ("", *_comment(part.group.help), f'# {FILE} = "preprocess.toml"')
        yield from _table(part.group.kind, f"{prefix}{part.name}.", dict(part.group.otherwise))


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 100)]


def _sentence(field: OptionField, default: Any) -> str:
    notes = [field.option.unit] if field.option.unit else []
    if text := field.option.when_absent or default_text(default):
        notes.append(f"default: {text}")
    return field.option.help + (f" [{'; '.join(notes)}]" if notes else "")


def _value(field: OptionField, default: Any) -> str:
    """A value in TOML: the default, or an example if there is none."""
    if field.option.example:
        return field.option.example
    if field.kind is Kind.NAMED:
        return "{}"
    if default is None:
        return _example(field)
    return toml_value(written(field, default))


def _example(field: OptionField) -> str:
    if field.choices:
        return toml_value(field.choices[0])
    if field.type is bool:
        return "true"
    if field.type in (int, float):
        least = max(1, field.option.low or 1)
        return f"{least:g}" if field.type is int else f"{float(least)}"
    return toml_value(field.option.metavar or field.name.replace("_", "-"))
