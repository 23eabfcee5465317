"""Texts that depend on numbers."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, whose plural takes an s: ``1 sample``, ``0 samples``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
