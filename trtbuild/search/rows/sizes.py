"""Where the images of a batch lie in a tensor, and lengths of axes as products of numbers and names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BATCH",
    "MANY",
    "ONE",
    "UNKNOWN",
    "Entry",
    "Rows",
    "Size",
    "is_of_batch",
    "quotient",
    "times",
]

BATCH = "number of images in the batch"
"""The name of the batch's length, which no dim of a network has."""

MANY = "length that depends on the batch"
"""Stands for a length that is not the batch's, but depends on it."""

UNKNOWN = "?"
"""The start of names of numbers that a node computes, which may also be 0 or -1."""

Entry: TypeAlias = "int | str"
"""A length, `BATCH`, `MANY`, or the name of a length that is the same in any batch."""


@dataclass(frozen=True)
class Size:
    """A product of a number and named lengths, which are sorted."""

    count: int = 1
    names: tuple[str, ...] = ()


ONE = Size()


@dataclass(frozen=True)
class Rows:
    """Where the images of a batch lie in a tensor: along one axis, one after the other.

    Attributes:
        axis: the axis, counted from the front.
        size: how many entries of this axis each image has, one after the other.
        repeats: how many times all images follow each other along this axis.
    """

    axis: int
    size: Size = ONE
    repeats: Size = ONE

    @property
    def is_plain(self) -> bool:
        """Whether the axis has one entry for each image."""
        return self.size == self.repeats == ONE

    def at(self, axis: int) -> Rows:
        """Return the same along another axis."""
        return replace(self, axis=axis)


def is_of_batch(entry: Entry) -> bool:
    """Return whether a length may depend on the number of images."""
    return entry in (BATCH, MANY)


def times(size: Size, entries: Iterable[Entry]) -> Size:
    """Return a size times some lengths, none of which depends on the batch."""
    count, names = size.count, list(size.names)
    for one in entries:
        if isinstance(one, int):
            count *= one
        else:
            names.append(one)
    return Size(count, tuple(sorted(names)))


def quotient(size: Size, divisor: Size) -> Size | None:
    """Return `size` divided by `divisor`; None if it is not known to leave no remainder."""
    names, others = Counter(size.names), Counter(divisor.names)
    if divisor.count < 1 or size.count % divisor.count or others - names:
        return None
    return Size(size.count // divisor.count, tuple((names - others).elements()))
