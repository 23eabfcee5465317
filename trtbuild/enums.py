"""Enumerations whose members are their texts, on every Python that is supported.

Python 3.10 has no `enum.StrEnum`. This one is what 3.11 added, for members with a written value.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["StrEnum"]


class StrEnum(str, Enum):
    """Members are strings: they print, format, compare and go into JSON as their values."""

    __str__ = str.__str__
