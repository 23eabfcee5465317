"""Pieces of an HTML page: headings, tables, folds; everything that comes from outside is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from trtbuild.report.svg import STYLE as PLOT_STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["definitions", "figure", "fold", "page", "section", "table"]

_STYLE = """
:root { color-scheme: light; --line: #dde3ea; --soft: #f5f7fa; --ink: #1c2733; --dim: #5b6876; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
.verdict { display: inline-block; padding: 5px 14px; border-radius: 6px; color: #fff; font-weight: 600; }
.pass { background: #2f7d32; } .fail { background: #b3261e; }
.bad { color: #b3261e; font-weight: 600; } .good { color: #2f7d32; } .dim { color: var(--dim); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 14px 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--dim); font-weight: 600; background: var(--soft); }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 7rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 18px; }
figure { margin: 0; padding: 10px 12px; border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-size: .88rem; color: var(--dim); margin-bottom: 4px; overflow-wrap: anywhere; }
details { margin: 10px 0; } summary { cursor: pointer; color: #1f6fb2; }
pre { background: var(--soft); padding: 12px; overflow: auto; font-size: .8rem; }
@media (max-width: 620px) {
  main { padding: 14px 12px 40px; } dl { grid-template-columns: 1fr; } dt { margin-top: 6px; }
  th, td { padding: 4px 6px; font-size: .86rem; }
}
@media print {
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  .verdict { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; } .wide { overflow: visible; }
  details:not([open]) { display: none; }
}
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page; it loads nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{PLOT_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A heading and what stands under it; nothing where nothing does."""
    content = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(heading)}</h2>\n{content}</section>" if content else ""


def definitions(facts: Mapping[str, str]) -> str:
    """Labels and texts in two columns."""
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in facts.items())
    return f"<dl>{items}</dl>" if items else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """A table whose first `names` columns are names and whose others are numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{"name" if i < names else "number"}">{escape(text)}</{tag}>'
            for i, text in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    if not body:
        return ""
    head = f"<tr>{cells('th', headings)}</tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def figure(caption: str, plot: str) -> str:
    """A plot with its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{plot}</figure>"


def fold(summary: str, content: str) -> str:
    """Something long that opens on a click, and is left out of print while it is closed."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"
