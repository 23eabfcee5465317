"""A report: results as data, independent of how they are shown.

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

    from trtbuild.manifest import NextStep
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
    """The meaning of a text, which decides its colour."""

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
    """A share from 0 to 1, which a page draws as a bar beside its text."""

    share: float
    text: str
    tone: Tone = Tone.PLAIN


Cell: TypeAlias = "str | Line | Meter | tuple[str, ...]"
"""A cell of a table: a text, a text with a tone, a share, or several lines."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        is_name: whether it holds texts (left-aligned, folded if space is short) instead of numbers.
        is_detail: whether only a page shows it, because a terminal has no room.
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
    """Rows of cells; a table without rows is left out.

    Attributes:
        columns: one for each cell of a row.
        rows: the cells.
        caption: text under the table.
        num_shown: number of rows that a terminal shows, and that a page shows unfolded; None for all.
        fold: a page's heading for the folded table; such a table does not appear on a terminal.
        on_page: whether only a page shows it, though unfolded.
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
        plots: the plots.
        is_wide: whether each plot takes the whole width.
    """

    plots: tuple[Plot, ...]
    is_wide: bool = False


@dataclass(frozen=True)
class Gallery:
    """Samples with both networks' answers, the worst first; a terminal shows none.

    Attributes:
        samples: the samples; those with a view are shown.
        figure: name of their values, with the unit in words.
        network: name of the second network.
    """

    samples: tuple[SampleScore, ...]
    figure: str
    network: str


@dataclass(frozen=True)
class Verbatim:
    """A text that is shown unchanged, such as a command; a terminal shows none.

    Attributes:
        text: the text.
        fold: a page's heading for the folded text; if empty, the text is not folded, and can be copied.
    """

    text: str
    fold: str = ""


@dataclass(frozen=True)
class Card:
    """One figure that readers look for first.

    Attributes:
        title: name of the figure.
        value: the figure, in a word or two.
        detail: its interval, and what it refers to.
        tone: its meaning.
    """

    title: str
    value: str
    detail: str = ""
    tone: Tone = Tone.PLAIN


Block: TypeAlias = "Line | Table | Plots | Gallery | Verbatim"


@dataclass(frozen=True)
class Section:
    """Blocks under one heading, which a page shows. A section without blocks is left out."""

    heading: str
    blocks: tuple[Block, ...]


class Outcome(Enum):
    """The result of a check."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The samples or the interval do not decide it."""


@dataclass(frozen=True)
class Check:
    """One figure compared with a limit.

    Attributes:
        suite: the group of checks that it belongs to.
        subject: what was judged: a network, or ``latency``.
        what: the figure.
        outcome: the result.
        text: the numbers, in words.
        is_expected: whether it need not be mentioned while it passes.
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
    """The result of a command; empty parts are left out.

    Attributes:
        title: what the result is about.
        cards: the figures that readers look for first.
        facts: label -> text, at the top: files, data, backend.
        notes: what a user should know before reading on.
        sections: the figures.
        files: path -> description, for every written file.
        checks: the judged figures.
        ruling: the verdict in a word, of `trtbuild.verification.ruling`; empty if nothing was judged.
        verdict: the reason for the verdict.
        next_step: what to do next; None if nothing is.
        data: the result for programs, of types that `trtbuild.json_codec.encode` can encode.
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
    next_step: NextStep | None = None
    data: object = None

    @property
    def tone(self) -> Tone:
        """The tone of the verdict."""
        return _TONES.get(self.ruling, Tone.NOTE)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.outcome is not Outcome.FAILED for check in self.checks)

    @property
    def told_checks(self) -> tuple[Check, ...]:
        """The checks to show: those of a user's limit, and those that did not pass; failures come first."""
        told = [c for c in self.checks if c.outcome is not Outcome.PASSED or not c.is_expected]
        return tuple(sorted(told, key=lambda check: check.outcome is not Outcome.FAILED))

    @property
    def filled_sections(self) -> tuple[Section, ...]:
        """The sections that are not empty."""
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
