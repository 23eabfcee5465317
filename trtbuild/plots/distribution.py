"""Distributions of several series: one row of bars for each, under its median as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.plots.canvas import (
    BOTTOM,
    Axis,
    axis_parts,
    element,
    line,
    rectangle,
    series_class,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.plots.data import Distribution

__all__ = ["draw_distribution"]

_ROW, _TITLE = 88.0, 34.0
_NUM_BINS = 90
# Rows whose values differ by more than this get a logarithmic axis.
_FAR_RATIO = 4.0


def draw_distribution(plot: Distribution) -> str:
    """Return the plot as an ``svg`` element."""
    rows = [(name, np.sort(np.asarray(values, np.float64))) for name, values in plot.series]
    axis = _axis(rows, plot.unit)
    height = _ROW * len(rows) + BOTTOM
    parts = [
        part
        for number, (name, values) in enumerate(rows)
        for part in _row(axis, number, name, values)
    ]
    return element([*parts, *axis_parts(axis, height)], plot.caption, height)


def _axis(rows: list[tuple[str, np.ndarray]], unit: str) -> Axis:
    low = min(float(values[0]) for _, values in rows)
    high = max(_quantile(values, 0.99) for _, values in rows)
    is_log = low > 0 and high > _FAR_RATIO * low
    room = 1.05 if is_log else 1.02
    return Axis(low / room, high * room if high > low else low * 1.1 + 1e-12, unit, is_log=is_log)


def _quantile(ordered: np.ndarray, share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def _row(axis: Axis, number: int, name: str, values: np.ndarray) -> Iterator[str]:
    kind, top = series_class(number), _ROW * number
    base, room = top + _ROW - 4.0, _ROW - _TITLE - 8.0
    space = np.geomspace if axis.is_log else np.linspace
    counts, edges = np.histogram(values, bins=space(axis.low, axis.high, _NUM_BINS + 1))
    highest = max(int(counts.max()), 1)
    for count, left, right in zip(counts, edges, edges[1:]):
        if count:
            x, end = axis.place(float(left)), axis.place(float(right))
            size = max(room * float(count) / highest, 0.8)
            yield rectangle(x, end - x, base - size, size, f"fill {kind}")
    median = float(np.median(values))
    at = axis.place(median)
    yield line(at, at, top + _TITLE + 2.0, base, f"line {kind}")
    yield line(axis.left, axis.right, base, base, "grid")
    yield written(axis.left, top + 14.0, f"{name}: median {median:.4g} {axis.unit}", kind)
    within = _quantile(values, 0.99)
    beyond = f"all {len(values)} within {float(values[-1]):.3g} {axis.unit}"
    if len(values) >= 100:
        beyond = f"99 of 100 within {within:.3g}, {beyond}"
    yield written(axis.left, top + 29.0, beyond)
