"""Small plots as SVG text: bars, lines and dots on an axis. No library, no script, prints well.

Colours come from CSS classes (``bar``, ``line-0`` ...), so that one style sheet serves all plots of a
page; `STYLE` is that sheet. A plot stretches to the width that it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from trtbuild.plots.data import Bars, Steps
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trtbuild.plots.data import Dots, Mark, Plot

__all__ = ["STYLE", "draw", "picture"]

_WIDTH, _HEIGHT = 640.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 8.0, 8.0, 26.0, 30.0
_MARK = 13.0  # height of the row of a mark's label

# Of a plot of dots: the height of a row, the room for its name, and how much of that is shown.
_ROW, _NAMES, _LONGEST = 18.0, 200.0, 30

STYLE = """
svg.plot { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg.plot text { fill: #444; }
svg.plot .bar { fill: #8fb4d8; }
svg.plot .axis { stroke: #888; stroke-width: 1; }
svg.plot .grid { stroke: #ddd; stroke-width: 1; }
svg.plot .line { fill: none; stroke-width: 1.75; }
svg.plot .s0 { stroke: #1f6fb2; } svg.plot text.s0 { fill: #1f6fb2; stroke: none; }
svg.plot .s1 { stroke: #c2410c; } svg.plot text.s1 { fill: #c2410c; stroke: none; }
svg.plot .s2 { stroke: #3f7d20; } svg.plot text.s2 { fill: #3f7d20; stroke: none; }
svg.plot .s3 { stroke: #7c3aed; } svg.plot text.s3 { fill: #7c3aed; stroke: none; }
svg.plot .s4 { stroke: #0f766e; } svg.plot text.s4 { fill: #0f766e; stroke: none; }
svg.plot .s5 { stroke: #b4237a; } svg.plot text.s5 { fill: #b4237a; stroke: none; }
svg.plot .dot { fill: none; stroke-width: 1.75; }
"""
_NUM_COLORS = 6


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: from `low` to `high`, in `unit`."""

    low: float
    high: float
    unit: str
    left: float = _LEFT

    def place(self, value: float) -> float:
        """Horizontal position of `value`, clipped to the plot."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.left + min(max(share, 0.0), 1.0) * (_WIDTH - self.left - _RIGHT)


def draw(plot: Plot) -> str:
    """Return `plot` as an ``svg`` element; a page that holds it needs `STYLE`."""
    if isinstance(plot, Bars):
        return _bars(plot)
    return _steps(plot) if isinstance(plot, Steps) else _dots(plot)


def picture(plot: Plot) -> str:
    """Return `plot` as the text of an SVG file."""
    head, _, rest = draw(plot).partition(">")
    return f"{head}><style>{STYLE}</style>{rest}\n"


def _bars(plot: Bars) -> str:
    axis = Axis(plot.edges[0], plot.edges[-1], plot.unit)
    tall = [math.log10(1.0 + height) if plot.logarithmic else height for height in plot.heights]
    highest = max(tall, default=0.0) or 1.0
    rows = max(len(plot.marks), 2)
    room = _HEIGHT - _MARK * rows - _BOTTOM
    rectangles = []
    for left, right, height in zip(plot.edges, plot.edges[1:], tall):
        if height > 0:
            x, end = axis.place(left), axis.place(right)
            size = height / highest * room
            rectangles.append(
                f'<rect class="bar" x="{x:.1f}" y="{_HEIGHT - _BOTTOM - size:.1f}"'
                f' width="{max(end - x, 0.6):.1f}" height="{size:.1f}"/>'
            )
    return _element([*rectangles, *_axis(axis), *_marks(axis, plot.marks)], plot.caption)


def _steps(plot: Steps) -> str:
    """Medians and tails can be read off; the axis ends at the 99.5th percentile.

    One hiccup does not press all else together.
    """
    ordered = [sorted(values) for _, values in plot.series]
    ends = [values[min(len(values) - 1, int(0.995 * len(values)))] for values in ordered]
    axis = Axis(min(values[0] for values in ordered), max(ends), plot.unit)
    parts = [_level(share) for share in (0.5, 0.9, 0.99)]
    for number, values in enumerate(ordered):
        points = " ".join(
            f"{axis.place(value):.1f},{_share_place((i + 1) / len(values)):.1f}"
            for i, value in _thinned(values)
        )
        parts.append(f'<polyline class="line s{number % _NUM_COLORS}" points="{points}"/>')
    return _element(
        [*parts, *_axis(axis), *_legend([name for name, _ in plot.series])], plot.caption
    )


def _dots(plot: Dots) -> str:
    """As tall as it has rows; the axis begins at 0."""
    values = [v for series in plot.series.values() for v in series if not math.isnan(v)]
    axis = Axis(0.0, max([1.0, *values]), plot.unit, left=_LEFT + _NAMES)
    height = _TOP + _ROW * len(plot.rows) + _BOTTOM
    parts = []
    for row, name in enumerate(plot.rows):
        y = _TOP + _ROW * (row + 0.5)
        parts.append(
            f'<line class="grid" x1="{axis.left}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{axis.left - 6}" y="{y + 4:.1f}" text-anchor="end">{_words(_short(name))}</text>'
        )
        for number, series in enumerate(plot.series.values()):
            if not math.isnan(series[row]):
                parts.append(
                    f'<circle class="dot s{number % _NUM_COLORS}" cx="{axis.place(series[row]):.1f}"'
                    f' cy="{y:.1f}" r="3.2"/>'
                )
    parts += [*_axis(axis, height), *_legend(list(plot.series))]
    return _element(parts, plot.caption, height)


def _short(name: str) -> str:
    """The end of a long name, which tells it from its neighbours."""
    return name if len(name) <= _LONGEST else f"\N{HORIZONTAL ELLIPSIS}{name[1 - _LONGEST :]}"


def _legend(names: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * number / max(len(names), 4)
        yield f'<text class="s{number % _NUM_COLORS}" x="{x:.0f}" y="16">{_words(name)}</text>'


def _thinned(values: Sequence[float]) -> Iterable[tuple[int, float]]:
    step = max(1, len(values) // 200)
    return [(i, values[i]) for i in range(0, len(values), step)] + [(len(values) - 1, values[-1])]


def _share_place(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _level(share: float) -> str:
    y = _share_place(share)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_WIDTH - _RIGHT:.0f}" y="{y - 2:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
    )


def _axis(axis: Axis, height: float = _HEIGHT) -> list[str]:
    base = height - _BOTTOM
    parts = [
        f'<line class="axis" x1="{axis.left}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    ]
    ticks = _ticks(axis)
    for number, tick in enumerate(ticks):
        x = axis.place(tick)
        unit = f" {axis.unit}" if number == len(ticks) - 1 else ""
        anchor = "end" if x > _WIDTH - 60 else "start" if x < axis.left + 52 else "middle"
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>'
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="{anchor}">{tick:g}{_words(unit)}</text>'
        )
    return parts


def _ticks(axis: Axis) -> list[float]:
    """Round numbers about a fifth of the axis apart."""
    span = axis.high - axis.low
    if not span > 0:
        return [axis.low]
    magnitude = 10.0 ** math.floor(math.log10(span / 5))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= span / 5)
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _marks(axis: Axis, marks: Sequence[Mark]) -> list[str]:
    """A line for each, and its label in a row of its own over the bars."""
    parts = []
    for number, mark in enumerate(marks):
        x = axis.place(mark.value)
        anchor = "end" if x > _WIDTH / 2 else "start"
        shift = -3 if anchor == "end" else 3
        y = _MARK * number + _MARK - 1
        parts.append(
            f'<line class="line s{mark.series % _NUM_COLORS}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8:.0f}"'
            f' y2="{_HEIGHT - _BOTTOM}"/><text class="s{mark.series % _NUM_COLORS}" x="{x + shift:.1f}"'
            f' y="{y:.0f}" text-anchor="{anchor}">{_words(mark.label)}</text>'
        )
    return parts


def _element(parts: Iterable[str], title: str, height: float = _HEIGHT) -> str:
    """The plot; screen readers read its title."""
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img"'
        f' xmlns="http://www.w3.org/2000/svg"><title>{_words(title)}</title>{"".join(parts)}</svg>'
    )


def _words(text: str) -> str:
    return escape(visible(text))
