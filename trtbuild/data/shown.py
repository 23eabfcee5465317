"""Names of files as text that every terminal and every file can take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

__all__ = ["shown"]


def shown(name: str | PurePath) -> str:
    r"""Return `name` with an escape such as ``\udcff`` or ``\x1b`` for whatever is no printable character."""
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in str(name)
    )
