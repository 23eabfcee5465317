"""Where a command writes: results to standard output, progress and notes to standard error.

With ``--json`` only JSON goes to standard output and everything else to standard error; with
``--quiet`` only errors, warnings and JSON are written. No text is interpreted as markup.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.progress_lines import ProgressLines
from trtbuild.progress import Progress, silent, stage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.report.model import Report

__all__ = ["Answered", "Output", "output_options"]


# Wide lines for pipes: other programs search the output for names, which must not be broken.
_PIPED_WIDTH = 1_000


@dataclass
class Answered:
    """What a command has written.

    Attributes:
        in_json: whether its one JSON document is on standard output, or none was asked for.
    """

    in_json: bool = False


@dataclass(frozen=True)
class Output:
    """How a command writes its results."""

    json: bool = False
    quiet: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether `show` prints nothing, so that no report need be made for it."""
        return self.quiet and not self.json

    def show(self, report: Report) -> None:
        """Print a result: for people, and as JSON if that was asked for."""
        self.tell(report)
        if self.json:
            from trtbuild.json_codec import dumps

            click.echo(dumps(report.data))
            if (answered := _answered()) is not None:
                answered.in_json = True

    def tell(self, report: Report) -> None:
        """Print a report for people before the command's final result."""
        if self.quiet:
            return
        from rich.console import Console

        from trtbuild.report.text import print_report

        console = Console(stderr=self.json)
        if not console.is_terminal:
            console = Console(stderr=self.json, width=_PIPED_WIDTH)
        print_report(report, console)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show a bar per stage, named by its step; lines if standard error is not a terminal."""
        if self.quiet:
            yield silent
            return
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_terminal:
            with ProgressLines() as lines:
                yield lines
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        from trtbuild.visible import visible

        columns = (
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=console, transient=True) as bars:
            tasks: dict[str, Any] = {}

            def show(stage: str, done: int, total: int | None) -> None:
                name, stage = visible(stage), stage_of(stage)
                if stage not in tasks:
                    tasks[stage] = bars.add_task(name, total=total)
                bars.update(tasks[stage], description=name, completed=done, total=total)

            yield show


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json`` and ``--quiet``; the command gets them as one `Output` named ``out``."""

    @click.option(
        "--json", "json_", is_flag=True, help="Machine-readable result on standard output."
    )
    @click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only.")
    @functools.wraps(command)
    def wrapped(*args: Any, json_: bool, quiet: bool, **kwargs: Any) -> Any:
        return command(*args, out=Output(json_, quiet), **kwargs)

    return wrapped


def _answered() -> Answered | None:
    context = click.get_current_context(silent=True)
    return context.find_object(Answered) if context is not None else None
