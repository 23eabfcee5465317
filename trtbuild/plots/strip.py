"""Many thin bars side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.plots.canvas import element, line, rectangle, words, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.plots.data import Strip

__all__ = ["draw_strip"]

_HEIGHT, _KEY, _FOOT = 196.0, 44.0, 24.0
_LEFT, _RIGHT = 0.5, 99.5
_LEAST = 3.0


def draw_strip(plot: Strip) -> str:
    """Return the plot as an ``svg`` element; what is told of each bar is its title."""
    base, room = _HEIGHT - _FOOT, _HEIGHT - _FOOT - _KEY
    width = (_RIGHT - _LEFT) / max(len(plot.slats), 1)
    gap = 0.18 * width
    parts = [*_key(plot)]
    for number, slat in enumerate(plot.slats):
        size = max(min(slat.height, 1.0) * room, _LEAST)
        x = _LEFT + number * width + gap / 2
        parts.append(
            rectangle(x, width - gap, base - size, size, f"slat {slat.level.value}", slat.text)
        )
    parts.append(line(_LEFT, _RIGHT, base, base, "axis"))
    parts.append(written(_LEFT, base + 17, plot.ends[0]))
    parts.append(written(_RIGHT, base + 17, plot.ends[1], anchor="end"))
    return element(parts, plot.caption, _HEIGHT)


def _key(plot: Strip) -> Iterator[str]:
    """What the colours mean, three in a row."""
    for number, (level, text) in enumerate(plot.levels.items()):
        x, y = 0.5 + 33.3 * (number % 3), 4.0 + 19.0 * (number // 3)
        yield (
            f'<rect class="slat {level.value}" x="{x:.1f}%" width="11" y="{y:.1f}" height="11"/>'
            f'<text x="{x:.1f}%" dx="16" y="{y + 10:.1f}">{words(text)}</text>'
        )
