"""Small plots as SVG text. No library, no script, prints well.

Colours come from CSS classes (``bar``, ``line``, ``s0`` ...), so one style sheet serves all plots of a
page. `STYLE` is that sheet; a page may set its colours by variables. A plot stretches to the available
width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.plots.canvas import (
    BOTTOM,
    Axis,
    axis_parts,
    element,
    legend,
    line,
    rectangle,
    series_class,
    words,
    written,
)
from trtbuild.plots.data import Bars, Distribution, Path, Strip
from trtbuild.plots.distribution import draw_distribution
from trtbuild.plots.path import draw_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbuild.plots.data import Dots, Mark, Plot

__all__ = ["STYLE", "draw", "picture"]

_WIDTH, _HEIGHT = 640, 200.0
_MARK = 15.0  # height of the row of a mark's label

# For a plot of dots: height of the legend, height of a row, and the number of characters shown of a name.
_TOP, _ROW, _LONGEST = 30.0, 32.0, 48

# For a strip: its height, the space above and below its bars, its left and right end, a bar's minimum height.
_STRIP_HEIGHT, _KEY, _FOOT = 196.0, 44.0, 24.0
_LEFT, _RIGHT = 0.5, 99.5
_LEAST_BAR = 3.0

_SERIES = ("#1f6fb2", "#c2410c", "#3f7d20", "#7c3aed", "#0f766e", "#b4237a")

STYLE = """
svg.plot { display: block; font: 12px system-ui, sans-serif; overflow: visible; }
svg.plot text { fill: var(--plot-text, #444); paint-order: stroke; }
svg.plot text { stroke: var(--surface, #fff); stroke-width: 3px; stroke-linejoin: round; }
svg.plot text.strong { fill: var(--plot-strong, #222); font-weight: 600; }
svg.plot text.bad { fill: var(--bad, #b3261e); }
svg.plot .bar { fill: var(--plot-bar, #8fb4d8); }
svg.plot .axis { stroke: var(--plot-axis, #888); stroke-width: 1; }
svg.plot .grid { stroke: var(--plot-grid, #ddd); stroke-width: 1; }
svg.plot .line { fill: none; stroke-width: 2; }
svg.plot .tried { stroke: var(--plot-axis, #888); stroke-width: 1; stroke-dasharray: 2 3; }
svg.plot .limit { stroke: var(--bad, #b3261e); stroke-width: 1.5; stroke-dasharray: 6 4; }
svg.plot .dot { fill: none; stroke-width: 1.75; }
svg.plot .fill { stroke: none; fill-opacity: .45; }
svg.plot .point { stroke-width: 2; fill: var(--surface, #fff); }
svg.plot .point.left { stroke: var(--plot-axis, #888); }
svg.plot .slat.low { fill: var(--slat-low, #7fb2dd); }
svg.plot .slat.middle { fill: var(--slat-middle, #e0a13a); }
svg.plot .slat.high { fill: var(--slat-high, #c4342b); }
svg.plot .slat.off { fill: var(--slat-off, #c3cbd4); }
""" + "".join(
    f"svg.plot .s{number} {{ stroke: var(--s{number}, {color}); }} svg.plot .fill.s{number} "
    f"{{ fill: var(--s{number}, {color}); stroke: none; }} svg.plot text.s{number}, "
    f"svg.plot tspan.s{number} {{ fill: var(--s{number}, {color}); stroke: var(--surface, #fff); "
    f"font-weight: 600; }}\n"
    for number, color in enumerate(_SERIES)
)


def draw(plot: Plot) -> str:
    """Return `plot` as an ``svg`` element; a page that holds it needs `STYLE`."""
    if isinstance(plot, Bars):
        return _bars(plot)
    if isinstance(plot, Distribution):
        return draw_distribution(plot)
    if isinstance(plot, Path):
        return draw_path(plot)
    return _strip(plot) if isinstance(plot, Strip) else _dots(plot)


def picture(plot: Plot) -> str:
    """Return `plot` as the text of an SVG file."""
    head, _, rest = draw(plot).partition(">")
    sized = head.replace('width="100%"', f'width="{_WIDTH}"', 1)
    return f"{sized}><style>{STYLE}</style>{rest}\n"


def _bars(plot: Bars) -> str:
    axis = Axis(plot.edges[0], plot.edges[-1], plot.unit)
    tall = [math.log10(1.0 + height) if plot.logarithmic else height for height in plot.heights]
    highest = max(tall, default=0.0) or 1.0
    height = _HEIGHT + _MARK * max(len(plot.marks) - 2, 0)
    room = height - _MARK * max(len(plot.marks), 2) - BOTTOM
    base = height - BOTTOM
    rectangles = []
    for left, right, tallness in zip(plot.edges, plot.edges[1:], tall):
        if tallness > 0:
            x, end = axis.place(left), axis.place(right)
            size = tallness / highest * room
            rectangles.append(rectangle(x, max(end - x, 0.1), base - size, size, "bar"))
    marks = _marks(axis, plot.marks, base)
    return element([*rectangles, *axis_parts(axis, height), *marks], plot.caption, height)


def _dots(plot: Dots) -> str:
    """One row per name, with a dot for each series; the axis begins at 0."""
    values = [v for series in plot.series.values() for v in series if not math.isnan(v)]
    axis = Axis(0.0, max([1.0, *values]), plot.unit)
    height = _TOP + _ROW * len(plot.rows) + BOTTOM
    parts = []
    for row, name in enumerate(plot.rows):
        y = _TOP + _ROW * (row + 0.75)
        parts.append(line(axis.left, axis.right, y, y, "grid"))
        parts.append(written(axis.left, y - 8, _short(name)))
        for number, series in enumerate(plot.series.values()):
            if not math.isnan(series[row]):
                parts.append(
                    f'<circle class="dot {series_class(number)}" cx="{axis.place(series[row]):.2f}%"'
                    f' cy="{y:.1f}" r="3.2"/>'
                )
    parts += [*axis_parts(axis, height), legend(list(plot.series))]
    return element(parts, plot.caption, height)


def _strip(plot: Strip) -> str:
    """Many thin bars side by side, with their texts as tooltips."""
    base, room = _STRIP_HEIGHT - _FOOT, _STRIP_HEIGHT - _FOOT - _KEY
    width = (_RIGHT - _LEFT) / max(len(plot.slats), 1)
    gap = 0.18 * width
    parts = [*_levels(plot)]
    for number, slat in enumerate(plot.slats):
        size = max(min(slat.height, 1.0) * room, _LEAST_BAR)
        x = _LEFT + number * width + gap / 2
        parts.append(
            rectangle(x, width - gap, base - size, size, f"slat {slat.level.value}", slat.text)
        )
    parts.append(line(_LEFT, _RIGHT, base, base, "axis"))
    parts.append(written(_LEFT, base + 17, plot.ends[0]))
    parts.append(written(_RIGHT, base + 17, plot.ends[1], anchor="end"))
    return element(parts, plot.caption, _STRIP_HEIGHT)


def _levels(plot: Strip) -> Iterator[str]:
    """The legend of the colours, three per row."""
    for number, (level, text) in enumerate(plot.levels.items()):
        x, y = 0.5 + 33.3 * (number % 3), 4.0 + 19.0 * (number // 3)
        yield (
            f'<rect class="slat {level.value}" x="{x:.1f}%" width="11" y="{y:.1f}" height="11"/>'
            f'<text x="{x:.1f}%" dx="16" y="{y + 10:.1f}">{words(text)}</text>'
        )


def _short(name: str) -> str:
    """The end of a long name, which distinguishes it from its neighbours."""
    return name if len(name) <= _LONGEST else f"\N{HORIZONTAL ELLIPSIS}{name[1 - _LONGEST :]}"


def _marks(axis: Axis, marks: Sequence[Mark], base: float) -> Iterator[str]:
    """Yield a line for each mark, then the labels, each in its own row above the bars."""
    rows = [_MARK * number + _MARK - 2 for number in range(len(marks))]
    for mark, y in zip(marks, rows):
        x = axis.place(mark.value)
        yield line(x, x, y - 9, base, f"line {series_class(mark.series)}")
    for mark, y in zip(marks, rows):
        x, kind = axis.place(mark.value), series_class(mark.series)
        if x > 50:
            yield written(x - 0.8, y, mark.label, kind, "end")
        else:
            yield written(x + 0.8, y, mark.label, kind)
