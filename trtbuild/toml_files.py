"""TOML files as dictionaries, and texts in them; the one place that picks the reader for this Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError, decoding
from trtbuild.visible import visible

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["quoted", "read_toml"]


def read_toml(path: Path, subject: str) -> dict[str, Any]:
    """Return the tables and values of a TOML file.

    Args:
        path: the file, UTF-8.
        subject: what the file is to the user, for the error ("preprocessing").

    Raises:
        OptionError: the file cannot be read, or is not TOML; the text says where.
    """
    with decoding(OptionError, f"cannot read the {subject} '{path}'"):
        text = path.read_bytes()
    with decoding(OptionError, f"the {subject} '{path}' is not TOML"):
        content: dict[str, Any] = tomllib.loads(text.decode())
    return content


def quoted(text: str) -> str:
    """Return a text as a TOML string in quotes, with escapes for what is not seen.

    Raises:
        OptionError: it is no text that UTF-8 can hold, such as a file name of other bytes.
    """
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise OptionError(
            f"'{text}' is no text in UTF-8, which TOML needs; rename it, or give it on the command line."
        )
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if visible(char) == char else f"\\U{ord(char):08x}"
