"""Small plots as SVG text: bars on an axis, and marked lines. No library, no script, prints well.

Colours come from CSS classes (``bar``, ``line-0`` ...), so that one style sheet serves all plots of a
page; `STYLE` is that sheet. A plot stretches to the width that it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["STYLE", "Axis", "Mark", "bars", "standalone", "steps"]

_WIDTH, _HEIGHT = 640.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 8.0, 8.0, 26.0, 30.0

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
"""


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: from `low` to `high`, in `unit`."""

    low: float
    high: float
    unit: str

    def place(self, value: float) -> float:
        """Horizontal position of `value`, clipped to the plot."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return _LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line; marks of one `series` share a colour."""

    value: float
    label: str
    series: int = 0


def bars(
    edges: Sequence[float],
    heights: Sequence[float],
    unit: str,
    marks: Sequence[Mark] = (),
    *,
    logarithmic: bool = False,
    title: str = "",
) -> str:
    """Draw a histogram.

    Args:
        edges: ``len(heights) + 1`` ascending values.
        heights: counts or shares, at or above 0.
        unit: under the axis.
        marks: lines over the bars.
        logarithmic: heights on a logarithmic scale, for counts that differ by powers of ten.
        title: read out by screen readers.
    """
    axis = Axis(edges[0], edges[-1], unit)
    tall = [math.log10(1.0 + height) if logarithmic else height for height in heights]
    top = max(tall, default=0.0) or 1.0
    rectangles = []
    for left, right, height in zip(edges, edges[1:], tall):
        if height > 0:
            x, end = axis.place(left), axis.place(right)
            size = height / top * (_HEIGHT - _TOP - _BOTTOM)
            rectangles.append(
                f'<rect class="bar" x="{x:.1f}" y="{_HEIGHT - _BOTTOM - size:.1f}"'
                f' width="{max(end - x, 0.6):.1f}" height="{size:.1f}"/>'
            )
    return _plot([*rectangles, *_axis(axis), *_marks(axis, marks)], title)


def steps(series: Sequence[tuple[str, Sequence[float]]], unit: str, *, title: str = "") -> str:
    """Draw the share of values at or below x, one line a series: medians and tails can be read off.

    The axis ends at the 99.5th percentile, so that one hiccup does not press all else together.

    Args:
        series: name and values.
        unit: under the axis.
        title: read out by screen readers.
    """
    ordered = [sorted(values) for _, values in series]
    ends = [values[min(len(values) - 1, int(0.995 * len(values)))] for values in ordered]
    axis = Axis(min(values[0] for values in ordered), max(ends), unit)
    parts = [_level(share) for share in (0.5, 0.9, 0.99)]
    for number, values in enumerate(ordered):
        points = " ".join(
            f"{axis.place(value):.1f},{_share_place((i + 1) / len(values)):.1f}"
            for i, value in _thinned(values)
        )
        parts.append(f'<polyline class="line s{number % 4}" points="{points}"/>')
    legend = [
        f'<text class="s{number % 4}" x="{_LEFT + 150 * number:.0f}" y="16">{escape(name)}</text>'
        for number, (name, _) in enumerate(series)
    ]
    return _plot([*parts, *_axis(axis), *legend], title)


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


def _axis(axis: Axis) -> list[str]:
    base = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>']
    ticks = _ticks(axis)
    for number, tick in enumerate(ticks):
        x = axis.place(tick)
        unit = f" {axis.unit}" if number == len(ticks) - 1 else ""
        anchor = "end" if x > _WIDTH - 60 else "start" if x < 60 else "middle"
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>'
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="{anchor}">{tick:g}{escape(unit)}</text>'
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
    parts = []
    for number, mark in enumerate(marks):
        x = axis.place(mark.value)
        anchor = "end" if x > _WIDTH / 2 else "start"
        shift = -3 if anchor == "end" else 3
        y = 12 + 13 * (number % 2)
        parts.append(
            f'<line class="line s{mark.series % 4}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8:.0f}"'
            f' y2="{_HEIGHT - _BOTTOM}"/><text class="s{mark.series % 4}" x="{x + shift:.1f}"'
            f' y="{y}" text-anchor="{anchor}">{escape(mark.label)}</text>'
        )
    return parts


def _plot(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img"'
        f' xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def standalone(plot: str) -> str:
    """Return a plot as a file of its own."""
    head, _, rest = plot.partition(">")
    return f"{head}><style>{STYLE}</style>{rest}\n"
