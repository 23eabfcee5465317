"""A search as a path of numbered points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.plots.canvas import BOTTOM, Axis, axis_parts, element, line, words, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbuild.plots.data import Path, Stop

__all__ = ["draw_path"]

_HEIGHT, _TOP, _FOOT = 300.0, 34.0, 18.0
_LEFT, _RIGHT = 12.0, 96.0
# Labels of points that would overlap are moved apart by this much.
_APART_PIXELS, _APART_PERCENT = 14.0, 4.0


def draw_path(plot: Path) -> str:
    """Return the plot as an ``svg`` element."""
    xs = [stop.x for stop in plot.stops]
    ys = [stop.y for stop in plot.stops] + ([plot.limit] if plot.limit is not None else [])
    across = Axis(*_room(xs), "", left=_LEFT, right=_RIGHT)
    up = Axis(*_room(ys), "")
    height = _HEIGHT

    def y_of(value: float) -> float:
        share = (value - up.low) / (up.high - up.low)
        return height - BOTTOM - share * (height - BOTTOM - _TOP)

    parts = [written(1.0, 16.0, plot.y_title, "strong")]
    for tick in up.ticks():
        parts.append(line(_LEFT, _RIGHT, y_of(tick), y_of(tick), "grid"))
        parts.append(written(_LEFT - 1.5, y_of(tick) + 4, f"{tick:g}", anchor="end"))
    if plot.limit is not None:
        parts.append(line(_LEFT, _RIGHT, y_of(plot.limit), y_of(plot.limit), "limit"))
        parts.append(written(_RIGHT, y_of(plot.limit) - 5, "limit", "bad", "end"))
    places = [(across.place(stop.x), y_of(stop.y)) for stop in plot.stops]
    parts += _joined(plot.stops, places)
    parts += _points(plot.stops, places)
    parts += axis_parts(across, height)
    parts.append(written(_RIGHT, height + _FOOT - 6, plot.x_title, "strong", "end"))
    return element(parts, plot.caption, height + _FOOT)


def _room(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with some room on both sides."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or max(abs(low) * 0.05, 0.5)
    return low - room, high + room


def _joined(stops: Sequence[Stop], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Lines from each kept point to the next, and thin ones to rejected points."""
    last: tuple[float, float] | None = None
    for stop, (x, y) in zip(stops, places):
        if last is not None:
            yield line(last[0], x, last[1], y, "line s0" if stop.kept else "tried")
        if stop.kept or last is None:
            last = (x, y)


def _points(stops: Sequence[Stop], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    taken: list[tuple[float, float]] = []
    for number, (stop, (x, y)) in enumerate(zip(stops, places)):
        kind = "point s0" if stop.kept else "point left"
        label = f"{number}: {stop.label}"
        yield (
            f'<circle class="{kind}" cx="{x:.2f}%" cy="{y:.1f}" r="4.5" tabindex="0">'
            f"<title>{words(label)}</title></circle>"
        )
        at = (x + 1.4, y - 6.0)
        while any(
            abs(at[0] - a) < _APART_PERCENT and abs(at[1] - b) < _APART_PIXELS for a, b in taken
        ):
            at = (at[0] + _APART_PERCENT, at[1])
        taken.append(at)
        yield written(min(at[0], 98.0), at[1], str(number), "strong")
