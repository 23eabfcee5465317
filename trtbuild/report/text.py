"""A report on a terminal: facts, notes, short tables, files, and the verdict last.

All text is printed unchanged: nothing is interpreted as markup, and invisible characters are escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from trtbuild.report.model import Line, Meter, Outcome, Table, Tone
from trtbuild.titles import TENSORRT_FORM, TITLES, in_a_sentence
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType

    from trtbuild.report.model import Block, Cell, Report

__all__ = ["print_blocks", "print_report"]

_STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.BAD: "red", Tone.NOTE: "yellow"}
_TONES = {Outcome.PASSED: Tone.GOOD, Outcome.FAILED: Tone.BAD, Outcome.UNKNOWN: Tone.NOTE}


def print_report(report: Report, console: Console) -> None:
    """Print `report` without its title, which repeats the command that the user just gave."""
    print_blocks(console, *_blocks(report))
    if report.files:
        rows = [(Text(visible(path)), Text(visible(what))) for path, what in report.files.items()]
        _print(console, _plain_grid(rows))
    for check in report.told_checks:
        # a sentence says "TensorRT's form"; the short name is for rows of tables
        subject = check.subject.replace(TITLES[TENSORRT_FORM], in_a_sentence(TENSORRT_FORM))
        _print(console, _text(Line(f"{subject}: {check.text}", _TONES[check.outcome])))
    _print_cards(report, console)
    if report.ruling:
        color = _STYLES[report.tone]
        _print(
            console, Text.assemble((report.ruling, f"bold {color}"), f": {visible(report.verdict)}")
        )
    if report.next_step is not None:
        step = visible(str(report.next_step))
        _print(console, Text.assemble(("what next", "bold"), f": {step}"))


def _blocks(report: Report) -> Iterator[Block]:
    yield from (Line(f"{label}: {text}") for label, text in report.facts.items())
    yield from report.notes
    for section in report.filled_sections:
        yield from section.blocks


def _print_cards(report: Report, console: Console) -> None:
    """Print the cards near the end, because a terminal shows the end."""
    rows = [
        (
            Text(visible(card.title), "bold"),
            Text(visible(card.value), _STYLES[card.tone]),
            Text(visible(card.detail)),
        )
        for card in report.cards
    ]
    if rows:
        _print(console, _plain_grid(rows))


def _plain_grid(rows: Sequence[tuple[Text, ...]]) -> Grid:
    """Columns without lines; the last one is folded if space is short."""
    grid = Grid.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in rows[0][:-1]:
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def print_blocks(console: Console, *blocks: Block) -> None:
    """Print lines and tables in order; plots are left out."""
    for block in blocks:
        if isinstance(block, Line):
            _print(console, _text(block))
        elif isinstance(block, Table) and block.rows and not (block.fold or block.on_page):
            _print(console, _grid(block))


def _print(console: Console, what: RenderableType) -> None:
    if console.is_terminal or isinstance(what, Text):
        console.print(what, markup=False, highlight=False, emoji=False, soft_wrap=True)
        return
    # a grid pads its last column with spaces, which do not belong in a file
    with console.capture() as captured:
        console.print(what, markup=False, highlight=False, emoji=False, soft_wrap=True)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _text(cell: Cell) -> Text:
    if isinstance(cell, Line | Meter):
        return Text(visible(cell.text), _STYLES[cell.tone])
    if isinstance(cell, tuple):
        return Text("\n".join(map(visible, cell)))
    return Text(visible(cell))


def _grid(table: Table) -> Grid:
    shown = [i for i, column in enumerate(table.columns) if not column.is_detail]
    has_lines = any(isinstance(cell, tuple) for row in table.rows for cell in row)
    grid = Grid(box=box.SQUARE, show_lines=has_lines)
    for column in (table.columns[i] for i in shown):
        justify, overflow = ("left", "fold") if column.is_name else ("right", "fold")
        grid.add_column(_text(column.title), justify=justify, overflow=overflow)  # type: ignore[arg-type]
    for row in table.rows[: table.num_shown]:
        grid.add_row(*(_text(row[i]) for i in shown))
    caption = [table.caption] if table.caption else []
    if table.num_shown is not None and len(table.rows) > table.num_shown:
        caption.append(f"{len(table.rows) - table.num_shown} more")
    if caption:
        grid.caption = Text("; ".join(map(visible, caption)))
    return grid
