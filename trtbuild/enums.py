"""Enumerations whose members are their texts, for every supported Python.

Python 3.10 has no `enum.StrEnum`. This one does what the class of 3.11 does for members with explicit values.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["StrEnum"]


class StrEnum(str, Enum):
    """Members are strings: they print, format, compare and go into JSON as their values."""

    __str__ = str.__str__
