"""TOML files as dictionaries; the one place that picks the reader for this Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError, decoding

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_toml"]


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
