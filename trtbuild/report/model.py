"""A report: what was found, as data; nothing here knows how it will look.

A command's result becomes one `Report`; `trtbuild.report.text`, ``html``, ``junit`` and ``json`` show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from trtbuild.verification.ruling import (
    ACCEPTED,
    DO_NOT_SHIP,
    FAST_ENOUGH,
    REJECTED,
    SHIP,
    TOO_SLOW,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trtbuild.plots.data import Plot
    from trtbuild.verification.tasks.base import SampleScore

__all__ = [
    "Block",
    "Card",
    "Cell",
    "Check",
    "Column",
    "Gallery",
    "Line",
    "Meter",
    "Outcome",
    "Plots",
    "Report",
    "Section",
    "Table",
    "Tone",
    "Verbatim",
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


@dataclass(frozen=True)
class Meter:
    """A share, 0 to 1, that a page draws as a bar beside its text."""

    share: float
    text: str
    tone: Tone = Tone.PLAIN


Cell: TypeAlias = "str | Line | Meter | tuple[str, ...]"
"""Of a table: a text, a text with a tone, a share, or several lines."""


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
        on_page: whether a page alone shows it, though unfolded.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    num_shown: int | None = None
    fold: str = ""
    on_page: bool = False


@dataclass(frozen=True)
class Plots:
    """Plots side by side; a terminal shows none.

    Attributes:
        plots: what is drawn.
        is_wide: whether each takes the whole width.
    """

    plots: tuple[Plot, ...]
    is_wide: bool = False


@dataclass(frozen=True)
class Gallery:
    """Samples with what both networks answer, the worst first; a terminal shows none.

    Attributes:
        samples: those that have a view are shown.
        figure: what their values are, with the unit in words.
        network: what the second network is called.
    """

    samples: tuple[SampleScore, ...]
    figure: str
    network: str


@dataclass(frozen=True)
class Verbatim:
    """A text that is shown as it is, such as a command; a terminal shows none.

    Attributes:
        text: the text.
        fold: what a page writes over the folded text; empty: it is not folded, and can be copied.
    """

    text: str
    fold: str = ""


@dataclass(frozen=True)
class Card:
    """One figure that a reader looks for first.

    Attributes:
        title: what it is.
        value: the figure, in a word or two.
        detail: its interval, and what it is of.
        tone: how it is meant.
    """

    title: str
    value: str
    detail: str = ""
    tone: Tone = Tone.PLAIN


Block: TypeAlias = "Line | Table | Plots | Gallery | Verbatim"


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
    """One figure that was held against a limit.

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


_TONES = {
    SHIP: Tone.GOOD,
    FAST_ENOUGH: Tone.GOOD,
    ACCEPTED: Tone.GOOD,
    DO_NOT_SHIP: Tone.BAD,
    TOO_SLOW: Tone.BAD,
    REJECTED: Tone.BAD,
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a command; what is empty is left out.

    Attributes:
        title: what the result is about.
        cards: the figures that a reader looks for first.
        facts: label -> text, at the top: files, data, backend.
        notes: what a user should know before reading on.
        sections: the figures.
        files: path -> what it is, of every file written.
        checks: what was judged.
        ruling: the verdict in a word, of `trtbuild.verification.ruling`; empty where nothing was judged.
        verdict: why that is the verdict.
        next_step: why something is to be done next, and the command; empty for nothing.
        data: the result for programs, of types that `trtbuild.json_codec.encode` knows.
    """

    title: str
    cards: tuple[Card, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Line, ...] = ()
    sections: tuple[Section, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    ruling: str = ""
    verdict: str = ""
    next_step: tuple[str, str] = ("", "")
    data: object = None

    @property
    def tone(self) -> Tone:
        """How the verdict is meant."""
        return _TONES.get(self.ruling, Tone.NOTE)

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
        if _holds_something(block):
            yield _without_empty_columns(block) if isinstance(block, Table) else block


def _holds_something(block: Block) -> bool:
    if isinstance(block, Table):
        return bool(block.rows)
    if isinstance(block, Plots):
        return bool(block.plots)
    if isinstance(block, Gallery):
        return any(sample.view is not None for sample in block.samples)
    return bool(block.text)


def _without_empty_columns(table: Table) -> Table:
    used = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    if len(used) == len(table.columns):
        return table
    rows = tuple(tuple(row[i] for i in used) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in used), rows=rows)
