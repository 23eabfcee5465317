"""Where a command's words go: tables to standard output, progress and notes to standard error.

With ``--json`` only JSON goes to standard output and everything else to standard error; with
``--quiet`` nothing but errors and JSON is said.
"""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

__all__ = ["Output", "output_options"]


@dataclass(frozen=True)
class Output:
    """How a command speaks."""

    json: bool = False
    quiet: bool = False

    def say(self, *parts: RenderableType) -> None:
        """Print text or tables for people."""
        if not self.quiet:
            console = Console(stderr=self.json, soft_wrap=True, highlight=False)
            for part in parts:
                console.print(part)

    def result(self, data: Any) -> None:
        """Print the machine-readable result, if it was asked for."""
        if self.json:
            click.echo(json.dumps(data, indent=1, ensure_ascii=False))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show a bar per stage while the block runs; nothing when nobody watches."""
        console = Console(stderr=True)
        if self.quiet or not console.is_terminal:
            yield silent
            return
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=console, transient=True) as bars:
            tasks: dict[str, Any] = {}

            def show(stage: str, done: int, total: int | None) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield show


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json`` and ``--quiet``; the command gets them as one `Output` named ``out``."""

    @click.option(
        "--json", "json_", is_flag=True, help="Machine-readable result on standard output."
    )
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @functools.wraps(command)
    def wrapped(*args: Any, json_: bool, quiet: bool, **kwargs: Any) -> Any:
        return command(*args, out=Output(json_, quiet), **kwargs)

    return wrapped
