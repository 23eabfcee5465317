"""A report as one HTML file that opens offline: the verdict first, the record last.

The page is ``page.html.j2`` beside this file, with ``blocks.html.j2``, ``page.css`` and ``page.js``. Jinja
escapes all foreign text there; pictures are embedded in the page. Without its script the page
shows the same; with it, plots have tooltips, and commands can be copied.
"""

from __future__ import annotations

import base64
import io
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from trtbuild.files import write_text
from trtbuild.json_codec import dumps
from trtbuild.plots.canvas import clipped
from trtbuild.plots.svg import STYLE, draw
from trtbuild.report.model import Gallery, Line, Meter, Outcome, Plots, Table, Tone, Verbatim
from trtbuild.visible import visible

if TYPE_CHECKING:
    import os

    from trtbuild.plots.data import Plot
    from trtbuild.report.model import Report
    from trtbuild.verification.views import Pixels

__all__ = ["to_html", "write_page"]

_CLASSES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.UNKNOWN: "note"}

# Limits for very large networks: rows of a table, and characters of the record. The manifest has the rest.
_MOST_ROWS = 500
_MOST_RECORDED = 600_000

# Smaller pictures, in pixels, are stored losslessly.
_SMALL = 128 * 128
_JPEG_QUALITY = 80

_FLAG = re.compile(r"(?<![\w-])(--[a-z][\w-]*)")


def write_page(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the page and return its path.

    Raises:
        OutputError: the file cannot be written.
    """
    place = Path(path)
    write_text(place, to_html(report))
    return place


def to_html(report: Report) -> str:
    """Return the page; it loads no other files."""
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
        "meter": lambda value: isinstance(value, Meter),
        "table": lambda value: isinstance(value, Table),
        "plots": lambda value: isinstance(value, Plots),
        "gallery": lambda value: isinstance(value, Gallery),
        "verbatim": lambda value: isinstance(value, Verbatim),
        "plain": lambda tone: tone is Tone.PLAIN,
    }
    record = "" if report.data is None else dumps(report.data)
    template = environment.get_template("page.html.j2")
    return template.render(
        report=report,
        record=record.splitlines() if len(record) <= _MOST_RECORDED else [],
        style=Markup(_beside("page.css") + STYLE),  # noqa: S704 - our own text
        script=Markup(_beside("page.js")),  # noqa: S704 - our own text
        draw=_drawn,
        encoded=_encoded,
        short=_short,
        flagged=_flagged,
        classes=_CLASSES,
        most_rows=_MOST_ROWS,
    )


def _beside(name: str) -> str:
    return (files("trtbuild.report") / name).read_text(encoding="utf-8")


def _seen(value: Any) -> Any:
    """Return the text that the page shows for `value`, before it is escaped."""
    return visible(value) if type(value) is str else value


def _short(value: Any) -> Any:
    """Return a text of limited length: generated names can be very long."""
    return clipped(value) if type(value) is str else value


def _flagged(text: str) -> Markup:
    """Return a text without line breaks inside names of options."""
    whole = Markup('<span class="flag">{}</span>')
    parts = _FLAG.split(visible(text))
    return Markup("").join(
        whole.format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _drawn(plot: Plot) -> Markup:
    return Markup(draw(plot))  # noqa: S704 - `draw` escapes every text that it is given


def _encoded(pixels: Pixels) -> str:
    """Return a picture as a ``data:`` URL: lossless if it is small, else JPEG."""
    kind = "PNG" if pixels.shape[0] * pixels.shape[1] <= _SMALL else "JPEG"
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, quality=_JPEG_QUALITY, optimize=True)
    text = base64.b64encode(content.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{text}"
