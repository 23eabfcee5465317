"""TOML files as dictionaries, and texts in them; the only place that chooses the TOML reader."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError, decoding
from trtbuild.files import content_of
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["quoted", "read_toml", "toml_text", "toml_value"]


def read_toml(path: Path, subject: str) -> dict[str, Any]:
    """Return the tables and values of a TOML file.

    Args:
        path: the file, UTF-8, with or without a byte-order mark.
        subject: the user's word for the file, for the error ("preprocessing").

    Raises:
        OptionError: the file cannot be read, or is not TOML; the message says where.
    """
    with decoding(OptionError, f"cannot read the {subject} '{path}'"):
        text = content_of(path)
    with decoding(OptionError, f"the {subject} '{path}' is not TOML"):
        content: dict[str, Any] = tomllib.loads(text.decode("utf-8-sig"))
    return content


def quoted(text: str) -> str:
    """Return a text as a quoted TOML string, with escapes for invisible characters.

    Raises:
        OptionError: UTF-8 cannot hold the text, such as a file name of other bytes.
    """
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise OptionError(
            f"'{text}' is not UTF-8 text, which TOML needs; rename it, or give it on the command line."
        )
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if visible(char) == char else f"\\U{ord(char):08x}"


def toml_text(table: Mapping[str, Any]) -> str:
    """Return tables of JSON types as the text of a TOML file; values that are None are left out.

    Raises:
        OptionError: UTF-8 cannot hold a text.
    """
    return "\n".join(_lines(table, "")).strip() + "\n"


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The values first, then the tables below them."""
    for key, value in table.items():
        if value is not None and not isinstance(value, dict):
            yield f"{_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield f"\n[{prefix}{_key(key)}]"
            yield from _lines(value, f"{prefix}{_key(key)}.")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)


def toml_value(value: Any) -> str:
    """Return a value of JSON types, tables included, as one line of TOML.

    Raises:
        OptionError: UTF-8 cannot hold a text.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else quoted(str(value))
