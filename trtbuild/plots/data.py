"""What a plot shows, as data; `trtbuild.plots.svg` draws it."""

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
        caption: what is shown.
        edges: ``len(heights) + 1`` ascending values.
        heights: counts or shares, at or above 0.
        unit: of the edges.
        marks: lines over the bars.
        logarithmic: heights on a logarithmic scale, for counts that differ by powers of ten.
    """

    caption: str
    edges: Sequence[float]
    heights: Sequence[float]
    unit: str
    marks: Sequence[Mark] = ()
    logarithmic: bool = False


@dataclass(frozen=True)
class Distribution:
    """How values are distributed, a row for each (name, values) of `series`, on one axis.

    The axis is logarithmic where the rows are far apart, and ends at the 99th percentile: what lies beyond is
    told in words, so that a tail presses nothing together.
    """

    caption: str
    series: Sequence[tuple[str, Sequence[float]]]
    unit: str


@dataclass(frozen=True)
class Stop:
    """A point of a path.

    Attributes:
        x, y: where.
        label: what it is, in words.
        kept: whether the path goes on from here; else it was tried and left.
    """

    x: float
    y: float
    label: str
    kept: bool = True


@dataclass(frozen=True)
class Path:
    """Points in their order, numbered from 0 and joined where they were kept.

    Attributes:
        caption: what is shown.
        stops: the points.
        x_title, y_title: of the axes, with their units.
        limit: a level that is to be reached; None for none.
    """

    caption: str
    stops: Sequence[Stop]
    x_title: str
    y_title: str
    limit: float | None = None


class Level(Enum):
    """How much a bar of a strip matters; each has a colour of its own."""

    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"
    OFF = "off"
    """Nothing is measured here."""


@dataclass(frozen=True)
class Slat:
    """One bar of a strip: its height as a share of the strip, 0 to 1, and what is told of it."""

    height: float
    level: Level
    text: str


@dataclass(frozen=True)
class Strip:
    """Many thin bars side by side, in an order that means something.

    Attributes:
        caption: what is shown.
        slats: the bars.
        levels: level -> what it means, for the key.
        ends: what stands at the left and the right end of the axis.
    """

    caption: str
    slats: Sequence[Slat]
    levels: Mapping[Level, str]
    ends: tuple[str, str]


@dataclass(frozen=True)
class Dots:
    """One row a name, and in it a dot for each series.

    Attributes:
        caption: what is shown.
        rows: the names, from the top.
        series: name -> a value for each row, at or above 0; NaN leaves the dot out.
        unit: of the values.
    """

    caption: str
    rows: Sequence[str]
    series: Mapping[str, Sequence[float]]
    unit: str


Plot: TypeAlias = "Bars | Distribution | Dots | Path | Strip"
