"""Other outputs of a command's result: an HTML page, JUnit XML."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.jobs.paths import Besides
    from trtbuild.report.model import Report

__all__ = ["ReportFiles", "page_option", "report_options"]

_PAGE = click.option(
    "--report", "html", type=click.Path(path_type=Path), help="Write one HTML page."
)
_JUNIT = click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML for CI.")


@dataclass(frozen=True)
class ReportFiles:
    """The files asked for."""

    html: Path | None = None
    junit: Path | None = None

    def besides(self, *read: Path, written: Path | None = None) -> Besides:
        """Return them with other files that a command reads and writes, to be checked before its work."""
        from trtbuild.jobs.paths import Besides

        return Besides(read, tuple(filter(None, (self.html, self.junit, written))))

    def write(self, report: Report) -> None:
        """Write them.

        Raises:
            OutputError: a file cannot be written.
        """
        if self.html is not None:
            from trtbuild.report.html import write_page

            write_page(report, self.html)
        if self.junit is not None:
            from trtbuild.files import write_text
            from trtbuild.report.junit import to_junit

            write_text(self.junit, to_junit(report))


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--report`` and ``--junit``; the command gets them as one `ReportFiles` named ``files``."""
    return _PAGE(_JUNIT(_as_files(command)))


def page_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add only ``--report``, for commands without a verdict; they get `ReportFiles` as ``files``."""
    return _PAGE(_as_files(command))


def _as_files(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def wrapped(*args: Any, html: Path | None, junit: Path | None = None, **kwargs: Any) -> Any:
        return command(*args, files=ReportFiles(html, junit), **kwargs)

    return wrapped
