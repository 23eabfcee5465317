"""Common elements of all plots: an axis, ticks, texts and the outer element.

Widths are percentages of the plot's width and heights are pixels, so texts keep their size on narrow
screens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "BOTTOM",
    "Axis",
    "axis_parts",
    "clipped",
    "element",
    "legend",
    "line",
    "rectangle",
    "series_class",
    "words",
    "written",
]

BOTTOM = 30.0
"""Height of an axis with its ticks, in pixels."""

_NUM_SERIES = 6
_BEHIND = ' dx="14"'
_LONGEST_TEXT = 300
_FEWEST_TICKS = 3


@dataclass(frozen=True)
class Axis:
    """The horizontal axis.

    Attributes:
        low, high: values at its ends.
        unit: unit of the values.
        left, right: where it begins and ends, in percent of the plot.
        is_log: whether the axis is logarithmic; `low` must be above 0 then.
    """

    low: float
    high: float
    unit: str
    left: float = 1.5
    right: float = 98.5
    is_log: bool = False

    def place(self, value: float) -> float:
        """Horizontal position of `value` in percent, clipped to the axis."""
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = (math.log(max(one, 1e-300)) for one in (low, high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Round numbers, about a fifth of the axis apart."""
        if self.is_log:
            return self._log_ticks()
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        magnitude = 10.0 ** math.floor(math.log10(span / 5))
        step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= span / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.12g}") for number in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            found = [float(f"{f * 10.0**power:.12g}") for power in powers for f in factors]
            inside = [tick for tick in found if self.low <= tick <= self.high]
            if len(inside) >= _FEWEST_TICKS:
                return inside[:: -(-len(inside) // 7)]
        return inside or [self.low, self.high]


def axis_parts(axis: Axis, height: float) -> Iterator[str]:
    """Yield the axis at the bottom of a plot of `height` pixels, with its ticks."""
    base = height - BOTTOM
    yield line(axis.left, axis.right, base, base, "axis")
    ticks = axis.ticks()
    for number, tick in enumerate(ticks):
        x = axis.place(tick)
        unit = f" {axis.unit}" if number == len(ticks) - 1 else ""
        anchor = "end" if x > 88 else "start" if x < axis.left + 5 else "middle"
        yield line(x, x, base, base + 4, "axis")
        yield written(x, base + 18, f"{tick:g}{unit}", anchor=anchor)


def line(x1: float, x2: float, y1: float, y2: float, kind: str) -> str:
    """Return a line; x in percent, y in pixels."""
    return f'<line class="{kind}" x1="{x1:.2f}%" x2="{x2:.2f}%" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def rectangle(x: float, width: float, y: float, height: float, kind: str, title: str = "") -> str:
    """Return a rectangle; x and width in percent, y and height in pixels."""
    shape = (
        f'<rect class="{kind}" x="{x:.3f}%" width="{width:.3f}%" y="{y:.1f}" height="{height:.1f}"'
    )
    return f"{shape}><title>{words(title)}</title></rect>" if title else f"{shape}/>"


def written(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """Return a text at x percent, y pixels."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}">{words(text)}</text>'


def series_class(number: int) -> str:
    """Return the CSS class that colours a series."""
    return f"s{number % _NUM_SERIES}"


def legend(names: Sequence[str], y: float = 16.0) -> str:
    """Return the names of series in their colours, one after the other."""
    parts = (
        f'<tspan class="{series_class(number)}"{_BEHIND if number else ""}>{words(name)}</tspan>'
        for number, name in enumerate(names)
    )
    return f'<text x="1.50%" y="{y:.1f}">{"".join(parts)}</text>'


def element(parts: Iterable[str], title: str, height: float) -> str:
    """Return the whole plot; screen readers read its title."""
    return (
        f'<svg class="plot" width="100%" height="{height:.0f}" role="img" aria-label="{words(title)}"'
        f' xmlns="http://www.w3.org/2000/svg"><title>{words(title)}</title>{"".join(parts)}</svg>'
    )


def words(text: str) -> str:
    """Return a text for an element: escaped, with invisible characters shown, and of limited length."""
    return escape(visible(clipped(text)))


def clipped(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Return a text without its middle if it is too long; the ends distinguish names."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
