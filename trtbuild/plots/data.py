"""What a plot shows, as data; `trtbuild.plots.svg` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Bars", "Dots", "Mark", "Plot", "Steps"]


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
class Steps:
    """The share of values at or below x, one line for each (name, values) of `series`."""

    caption: str
    series: Sequence[tuple[str, Sequence[float]]]
    unit: str


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


Plot: TypeAlias = "Bars | Steps | Dots"
