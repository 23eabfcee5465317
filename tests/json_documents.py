"""What commands print with ``--json``, held to the published schemas and to docs/stability.md."""

from __future__ import annotations

import functools
import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from trtbuild.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

__all__ = ["commands_with_json", "documented", "valid", "valid_output"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
FAILED = "trtbuild.error"

# The command of a group that is meant where none is named.
_DEFAULT = {"calibrate": "calibrate run"}


def commands_with_json() -> list[str]:
    """Every command that takes ``--json``, such as ``cache show``."""
    return [name for name, command in _commands() if "--json" in _flags(command)]


def _commands() -> list[tuple[str, click.Command]]:
    found = []
    for name in main._COMMANDS:
        command = importlib.import_module(f"trtbuild.cli.{name.replace('-', '_')}").command
        inner = getattr(command, "commands", {})
        found += [(name, command), *((f"{name} {one}", inner[one]) for one in inner)]
    return found


def _flags(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts}


@functools.cache
def documented() -> dict[str, frozenset[str]]:
    """The table of docs/stability.md: command -> names of the schemas that it prints."""
    page = (DOCS / "stability.md").read_text(encoding="utf-8")
    table = page.partition("| command | `schema` |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", table, re.MULTILINE)
    return {
        command: frozenset(re.findall(r"\[`(trtbuild\.[\w-]+)`\]", schemas))
        for commands, schemas in rows
        for command in re.findall(r"`([^`]+)`", commands)
    }


@functools.cache
def _validator(name: str, version: int) -> jsonschema.Draft202012Validator:
    manifest = DOCS / "manifest.schema.json"
    path = DOCS / "schemas" / f"{name}.v{version}.schema.json"
    text = (manifest if name == "trtbuild.manifest" else path).read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def valid(document: Any) -> Any:
    """Check that a document satisfies the published schema that it names; return it."""
    _validator(document["schema"], document["version"]).validate(document)
    return document


def valid_output(words: Sequence[str], output: str) -> Any:
    """Check what a command line with ``--json`` has printed; return it."""
    document = valid(json.loads(output))
    names = documented()[_command_of(words)]
    assert document["schema"] in {*names, FAILED}, (words, document["schema"])
    return document


def _command_of(words: Sequence[str]) -> str:
    two = " ".join(words[:2])
    return two if two in documented() else _DEFAULT.get(words[0], words[0])
