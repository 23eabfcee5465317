"""A report as one HTML file that opens offline: the verdict first, the record last.

The page is ``page.html.j2`` beside this file. Whatever comes from outside is escaped there by Jinja.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trtbuild.plots.svg import STYLE, draw
from trtbuild.records import dumps
from trtbuild.report.model import Line, Outcome, Plots, Table, Tone
from trtbuild.visible import visible

if TYPE_CHECKING:
    from trtbuild.plots.data import Plot
    from trtbuild.report.model import Report

__all__ = ["to_html"]

_CLASSES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.UNKNOWN: "note"}


def to_html(report: Report) -> str:
    """Return the page; it loads nothing and runs no script."""
    environment = Environment(
        loader=PackageLoader("trtbuild.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
        keep_trailing_newline=True,
    )
    environment.tests |= {
        "line": lambda value: isinstance(value, Line),
        "lines": lambda value: isinstance(value, tuple),
        "table": lambda value: isinstance(value, Table),
        "plots": lambda value: isinstance(value, Plots),
        "plain": lambda tone: tone is Tone.PLAIN,
    }
    record = [] if report.data is None else dumps(report.data).splitlines()
    template = environment.get_template("page.html.j2")
    return template.render(
        report=report,
        record=record,
        plot_style=Markup(STYLE),  # noqa: S704 - our own text
        draw=_drawn,
        classes=_CLASSES,
    )


def _seen(value: Any) -> Any:
    """Return what stands in the page for `value`, before it is escaped."""
    return visible(value) if type(value) is str else value


def _drawn(plot: Plot) -> Markup:
    return Markup(draw(plot))  # noqa: S704 - `draw` escapes every text that it is given
