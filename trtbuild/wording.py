"""Texts that depend on numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["counted", "dims_text", "listed"]


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number with its noun: ``1 sample``, ``0 samples``.

    Args:
        number: how many.
        thing: the noun.
        things: its plural; by default with an s.
    """
    return f"{number} {thing}" if number == 1 else f"{number} {things or f'{thing}s'}"


def listed(texts: Sequence[str], most: int) -> str:
    """Return the first texts, at most so many, and how many more there are: ``a, b and 3 more``."""
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"


def dims_text(dims: Iterable[int | str | None]) -> str:
    """Return dims for a message, a question mark for one without size and name: ``[N, 3, ?]``."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"
