"""Where a command's result goes besides the terminal: an HTML page, JUnit XML."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.report.model import Report

__all__ = ["ReportFiles", "report_options"]


@dataclass(frozen=True)
class ReportFiles:
    """The files asked for."""

    html: Path | None = None
    junit: Path | None = None

    def write(self, make: Callable[[], Report]) -> None:
        """Write them; the report is made only when one is wanted.

        Raises:
            OutputError: a file cannot be written.
        """
        if self.html is None and self.junit is None:
            return
        report = make()
        from trtbuild.report.junit import to_junit
        from trtbuild.report.to_html import to_html

        if self.html is not None:
            write_text(self.html, to_html(report))
        if self.junit is not None:
            write_text(self.junit, to_junit(report))


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--report`` and ``--junit``; the command gets them as one `ReportFiles` named ``files``."""

    @click.option(
        "--report", "html", type=click.Path(path_type=Path), help="Write one HTML page with plots."
    )
    @click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML for CI.")
    @functools.wraps(command)
    def wrapped(*args: Any, html: Path | None, junit: Path | None, **kwargs: Any) -> Any:
        return command(*args, files=ReportFiles(html, junit), **kwargs)

    return wrapped
