"""Damage files: flip bits, cut off, insert or overwrite bytes, replace numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

HUGE = (
    b"-1",
    b"0",
    b"1e400",
    b"9" * 19,
    b"9" * 30,
    b"9" * 5000,
    b"nan",
    b"2147483648",
    b"[" * 3000,
)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The file with flipped bits, cut off, with bytes inserted or overwritten, or with another number."""
    kind = chance.randrange(5)
    at = chance.randrange(max(1, len(content)))
    if kind == 0:
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + chance.randbytes(chance.choice((1, 4, 64))) + content[at:]
    if kind == 3:
        size = chance.choice((1, 2, 4, 8))
        return (
            content[:at] + chance.choice((b"\xff", b"\x00", b"\x7f")) * size + content[at + size :]
        )
    digits = [i for i, octet in enumerate(content) if 48 <= octet <= 57]
    if not digits:
        return content[at:]
    first = last = chance.choice(digits)
    while last < len(content) and 48 <= content[last] <= 57:
        last += 1
    return content[:first] + chance.choice(HUGE) + content[last:]
