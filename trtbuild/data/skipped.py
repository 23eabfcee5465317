"""The parts of the data that were not read, and why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HIDDEN", "Skipped", "grouped", "without_input"]

HIDDEN = "hidden"

# Number of names to list; the others are only counted.
_EXAMPLES = 3


@dataclass(frozen=True)
class Skipped:
    """Files or arrays that were skipped for one reason.

    Attributes:
        reason: in a few words, such as ``hidden``.
        count: number of files or arrays.
        examples: names of the first few, in order.
    """

    reason: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(f"'{name}'" for name in self.examples)
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} x {self.reason} ({names}{more})"


def without_input(names: Iterable[str]) -> tuple[Skipped, ...]:
    """Report arrays with these names as unread, because the network has no input for them."""
    return grouped((name, "an array that no input takes") for name in names)


def grouped(files: Iterable[tuple[str, str]]) -> tuple[Skipped, ...]:
    """Group pairs of a file's name and a reason by reason; both keep their order."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in files:
        names[reason].append(name)
    return tuple(Skipped(r, len(found), tuple(found[:_EXAMPLES])) for r, found in names.items())
