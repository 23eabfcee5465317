"""Texts from outside with what cannot be seen in them, or steers terminals, or breaks XML, made visible."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

__all__ = ["visible", "visible_lines"]

# Control, format (such as writing from right to left), surrogate, unassigned; line and paragraph ends.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})


def visible(text: str | PurePath) -> str:
    r"""Return `text` with an escape such as ``\x1b`` for each character that is not seen.

    Names of tensors, files and samples come from outside and may hold any of them; a byte of a file's name
    that is no UTF-8 becomes ``\udcff``.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSEEN else char
        for char in str(text)
    )


def visible_lines(text: str) -> str:
    """Return `text` as `visible` does, line by line: its own line ends stay."""
    return "\n".join(map(visible, text.split("\n")))
