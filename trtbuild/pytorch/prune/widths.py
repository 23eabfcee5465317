"""How many channels each group keeps, so that widths suit INT8 kernels and the total is what was asked for.

One multiple for all layers, always rounded down, takes 43 % of a narrow network where 30 % was asked for.
So every group is rounded to the nearest multiple that suits its own width, and the differences are made up
for where it costs least. Only where that misses the wish by more than two points are the multiples halved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["MISS", "ROUNDINGS", "Span", "common_multiple", "kept_channels", "width_of"]

ROUNDINGS = (32, 16, 8, 4, 2, 1)
"""INT8 kernels work on blocks of 32 channels; other widths are padded inside TensorRT."""

_NEAR = 0.1
"""A group may be this share of its channels away from its own wish through rounding."""
_FAR = 0.15
"""The same, where a group makes up for the others."""
MISS = 0.02
"""All groups together may be this share of their channels away."""


@dataclass(frozen=True)
class Span:
    """The channels of one group, which go together.

    Attributes:
        size: how many there are.
        unit: they go in multiples of this (heads of attention, groups of a convolution).
        multiple: what is left is divisible by this.
        wish: how many are to be left.
        least: so many stay at any rate.
        weight: layers that have this width.
    """

    size: int
    unit: int
    multiple: int
    wish: float
    least: int
    weight: float

    def step(self, rounding: int) -> int:
        """Return by how many channels it is cut with this rounding."""
        return math.lcm(self.unit, self.multiple, rounding)

    def nearest(self, step: int) -> int:
        """Return the number of channels nearest to the wish that this step allows."""
        if self.wish >= self.size:
            return self.size
        below = int(self.wish // step) * step
        allowed = [
            kept for kept in (below, below + step) if self.least <= kept < self.size and kept
        ]
        return min((*allowed, self.size), key=lambda kept: (abs(kept - self.wish), kept))


def kept_channels(spans: Sequence[Span], round_to: int | None) -> list[int]:
    """Return how many channels of each group stay.

    Args:
        spans: the groups.
        round_to: every width becomes a multiple of this; None chooses a multiple for each.
    """
    if round_to is not None:
        steps = [span.step(round_to) for span in spans]
        return _made_up(spans, steps, math.inf)
    total = sum(span.size * span.weight for span in spans)
    kept: list[int] = []
    for largest in ROUNDINGS:
        kept = _made_up(spans, [_suitable(span, largest) for span in spans], _FAR)
        missed = abs(_excess(spans, kept))
        if missed <= MISS * total:
            break
    return kept


def _suitable(span: Span, largest: int) -> int:
    """The widest rounding that leaves a group near its wish."""
    for rounding in ROUNDINGS:
        step = span.step(rounding)
        if rounding <= largest and abs(span.nearest(step) - span.wish) <= _NEAR * span.size:
            return step
    return span.step(1)


def _excess(spans: Sequence[Span], kept: Sequence[int]) -> float:
    return sum(span.weight * (count - span.wish) for span, count in zip(spans, kept))


def _made_up(spans: Sequence[Span], steps: Sequence[int], farthest: float) -> list[int]:
    """Every group rounded, then moved by single steps until the total is near.

    Args:
        spans: the groups.
        steps: in which each is cut.
        farthest: no group is moved further from its wish than this share of it.
    """
    kept = [span.nearest(step) for span, step in zip(spans, steps)]
    enough = MISS / 2 * sum(span.size * span.weight for span in spans)
    while True:
        excess = _excess(spans, kept)
        if abs(excess) <= enough:
            return kept
        moves = []
        for index, (span, step) in enumerate(zip(spans, steps)):
            moved = _moved(kept[index], span, step, down=excess > 0)
            if moved is None or span.wish >= span.size:
                continue
            after = excess + span.weight * (moved - kept[index])
            away = abs(moved - span.wish) / span.size
            if abs(after) < abs(excess) - 1e-9 and away <= farthest:
                moves.append((away, index, moved))
        if not moves:
            return kept
        _, index, moved = min(moves)
        kept[index] = moved


def _moved(kept: int, span: Span, step: int, *, down: bool) -> int | None:
    if down:
        moved = (math.ceil(kept / step) - 1) * step
        return moved if moved >= max(span.least, 1) else None
    moved = (kept // step + 1) * step
    return moved if moved < span.size else span.size if kept < span.size else None


def common_multiple(widths: Sequence[int]) -> int:
    """Return the widest rounding that all of `widths` are multiples of; 1 of none."""
    return next(
        one for one in ROUNDINGS if (widths and all(w % one == 0 for w in widths)) or one == 1
    )


def width_of(layer: Any) -> int:
    """Return the output channels of a convolution or linear layer."""
    return int(getattr(layer, "out_channels", 0) or layer.out_features)
