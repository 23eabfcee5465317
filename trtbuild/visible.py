"""Characters that a reader would not see, and that steer terminals or break XML, made visible."""

from __future__ import annotations

import unicodedata

__all__ = ["visible"]

# Control, format (such as writing from right to left), surrogate, unassigned; line and paragraph ends.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""Return `text` with an escape such as ``\x1b`` for each character that is not seen.

    Names of tensors, files and samples come from outside and may hold any of them.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSEEN else char
        for char in text
    )
