"""A report: what was found, as data; nothing here knows how it will look.

A command's result becomes one `Report`; `trtbuild.report.text`, ``html``, ``junit`` and ``json`` show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trtbuild.plots.data import Plot

__all__ = [
    "Block",
    "Cell",
    "Check",
    "Column",
    "Line",
    "Outcome",
    "Plots",
    "Report",
    "Section",
    "Table",
    "Tone",
    "details",
    "names",
    "numbers",
]


class Tone(Enum):
    """How a text is meant; a terminal and a page colour it by this."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    NOTE = "note"


@dataclass(frozen=True)
class Line:
    """One line of text."""

    text: str
    tone: Tone = Tone.PLAIN


Cell: TypeAlias = "str | Line | tuple[str, ...]"
"""Of a table: a text, a text with a tone, or several lines."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        is_name: whether it holds texts (to the left, folded where space is short) and not numbers.
        is_detail: whether a page shows it and a terminal has no room for it.
    """

    title: str
    is_name: bool = False
    is_detail: bool = False


def names(*titles: str) -> tuple[Column, ...]:
    """Return columns of texts."""
    return tuple(Column(title, is_name=True) for title in titles)


def numbers(*titles: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(title) for title in titles)


def details(*titles: str) -> tuple[Column, ...]:
    """Return columns of numbers that only a page shows."""
    return tuple(Column(title, is_detail=True) for title in titles)


@dataclass(frozen=True)
class Table:
    """Rows of cells; one without rows is left out.

    Attributes:
        columns: one for each cell of a row.
        rows: the cells.
        caption: under the table.
        num_shown: a terminal shows so many rows, and a page folds the others; None for all.
        fold: what a page writes over the folded table; such a table is no matter of a terminal.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    num_shown: int | None = None
    fold: str = ""


@dataclass(frozen=True)
class Plots:
    """Plots side by side; a terminal shows none."""

    plots: tuple[Plot, ...]


Block: TypeAlias = "Line | Table | Plots"


@dataclass(frozen=True)
class Section:
    """What belongs together; a page writes the heading over it. One without blocks is left out."""

    heading: str
    blocks: tuple[Block, ...]


class Outcome(Enum):
    """How a check has ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It could not be told."""


@dataclass(frozen=True)
class Check:
    """One thing that was judged.

    Attributes:
        suite: the checks it belongs to.
        subject: what was judged: a network, or ``latency``.
        what: the figure that was held against a limit.
        outcome: how it ended.
        text: the numbers, in words.
        is_expected: whether it goes without saying while it passes.
    """

    suite: str
    subject: str
    what: str
    outcome: Outcome
    text: str
    is_expected: bool = False


_TONES = {"SHIP": Tone.GOOD, "PASSED": Tone.GOOD, "DO NOT SHIP": Tone.BAD, "FAILED": Tone.BAD}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a command; what is empty is left out.

    Attributes:
        title: what the result is about.
        facts: label -> text, at the top: files, data, backend.
        notes: what a user should know before reading on.
        sections: the figures.
        files: path -> what it is, of every file written.
        checks: what was judged.
        verdict: what all checks together mean; empty where nothing was judged.
        ruling: whether an engine may be shipped, by `trtbuild.verification.ruling`; empty for other reports.
        next_step: why something is to be done next, and the command; empty for nothing.
        data: the result for programs, of types that `trtbuild.records.encode` knows.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Line, ...] = ()
    sections: tuple[Section, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    verdict: str = ""
    ruling: str = ""
    next_step: tuple[str, str] = ("", "")
    data: object = None

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return self.ruling or ("PASSED" if self.passed else "FAILED")

    @property
    def tone(self) -> Tone:
        """How the verdict is meant."""
        return _TONES.get(self.word, Tone.NOTE)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.outcome is not Outcome.FAILED for check in self.checks)

    @property
    def told_checks(self) -> tuple[Check, ...]:
        """The checks to tell people of: those with a limit, and what failed, which comes first."""
        told = [c for c in self.checks if c.outcome is not Outcome.PASSED or not c.is_expected]
        return tuple(sorted(told, key=lambda check: check.outcome is not Outcome.FAILED))

    @property
    def filled_sections(self) -> tuple[Section, ...]:
        """The sections that hold something."""
        return tuple(section for section in map(_filled, self.sections) if section.blocks)


def _filled(section: Section) -> Section:
    return Section(section.heading, tuple(_not_empty(section.blocks)))


def _not_empty(blocks: Iterable[Block]) -> Iterable[Block]:
    for block in blocks:
        if isinstance(block, Line) or (block.rows if isinstance(block, Table) else block.plots):
            yield block
