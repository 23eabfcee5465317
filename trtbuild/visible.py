"""Escapes characters of foreign texts that are invisible, control terminals, or are forbidden in XML."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

__all__ = ["as_written", "visible", "visible_lines"]

# Control, format (such as right-to-left marks), surrogate, unassigned; line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
_ESCAPE = re.compile(r"\\(?:[tnr]|x[\da-f]{2}|u[\da-f]{4}|U00(?:0[\da-f]|10)[\da-f]{4})")


def visible(text: str | PurePath) -> str:
    r"""Return `text` with an escape such as ``\x1b`` for each invisible character.

    Names of tensors, files and samples are foreign and may contain any character; a byte of a file name
    that is not UTF-8 becomes ``\udcff``.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSEEN else char
        for char in str(text)
    )


def as_written(text: str) -> str:
    """Return `text` with the characters that `visible` has escaped."""
    return _ESCAPE.sub(lambda found: found[0].encode().decode("unicode_escape"), text)


def visible_lines(text: str) -> str:
    """Return `text` as `visible` does, line by line: its own line breaks stay."""
    return "\n".join(map(visible, text.split("\n")))
