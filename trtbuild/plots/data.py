"""Content of plots as data; `trtbuild.plots.svg` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Bars", "Distribution", "Dots", "Level", "Mark", "Path", "Plot", "Slat", "Stop", "Strip"]


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line in a plot; marks of one `series` share a colour."""

    value: float
    label: str
    series: int = 0


@dataclass(frozen=True)
class Bars:
    """A histogram.

    Attributes:
        caption: what the plot shows.
        edges: ``len(heights) + 1`` ascending values.
        heights: counts or shares, at or above 0.
        unit: unit of the edges.
        marks: vertical lines over the bars.
        logarithmic: whether heights are on a log scale, for counts that differ by powers of ten.
    """

    caption: str
    edges: Sequence[float]
    heights: Sequence[float]
    unit: str
    marks: Sequence[Mark] = ()
    logarithmic: bool = False


@dataclass(frozen=True)
class Distribution:
    """Distributions of values, a row for each (name, values) of `series`, on one axis.

    The axis is logarithmic if the rows are far apart, and ends at the 99th percentile; a text gives the
    values beyond, so that a long tail does not compress the rest.
    """

    caption: str
    series: Sequence[tuple[str, Sequence[float]]]
    unit: str


@dataclass(frozen=True)
class Stop:
    """A point of a path.

    Attributes:
        x, y: its coordinates.
        label: its name, in words.
        kept: whether the path continues from here; else it was tried and rejected.
    """

    x: float
    y: float
    label: str
    kept: bool = True


@dataclass(frozen=True)
class Path:
    """Points in order, numbered from 0, joined where they were kept.

    Attributes:
        caption: what the plot shows.
        stops: the points.
        x_title, y_title: titles of the axes, with units.
        limit: a level to reach; None for none.
    """

    caption: str
    stops: Sequence[Stop]
    x_title: str
    y_title: str
    limit: float | None = None


class Level(Enum):
    """How important a bar of a strip is; each level has its own colour."""

    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"
    OFF = "off"
    """There is no measurement."""


@dataclass(frozen=True)
class Slat:
    """One bar of a strip: its height as a share of the strip, 0 to 1, and its tooltip."""

    height: float
    level: Level
    text: str


@dataclass(frozen=True)
class Strip:
    """Many thin bars side by side, in a meaningful order.

    Attributes:
        caption: what the plot shows.
        slats: the bars.
        levels: level -> its meaning, for the legend.
        ends: texts at the left and the right end of the axis.
    """

    caption: str
    slats: Sequence[Slat]
    levels: Mapping[Level, str]
    ends: tuple[str, str]


@dataclass(frozen=True)
class Dots:
    """One row per name, with a dot for each series.

    Attributes:
        caption: what the plot shows.
        rows: the names, from the top.
        series: name -> a value for each row, at or above 0; NaN omits the dot.
        unit: unit of the values.
    """

    caption: str
    rows: Sequence[str]
    series: Mapping[str, Sequence[float]]
    unit: str


Plot: TypeAlias = "Bars | Distribution | Dots | Path | Strip"
