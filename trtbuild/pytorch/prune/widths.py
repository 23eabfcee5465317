"""How many channels each group keeps, so that widths suit INT8 kernels and the total meets the request.

Rounding all layers down to one multiple removes 43 % of a narrow network when 30 % was requested.
So every group is rounded to the nearest multiple that suits its own width, and other groups compensate for
the differences where it costs least. Only if the request is missed by more than two points are the multiples
halved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.pytorch.layers import LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from torch import nn

__all__ = [
    "MISS",
    "ROUNDINGS",
    "Span",
    "common_multiple",
    "kept_channels",
    "layer_widths",
    "width_of",
]

ROUNDINGS = (32, 16, 8, 4, 2, 1)
"""INT8 kernels work on blocks of 32 channels; other widths are padded inside TensorRT."""

_NEAR = 0.1
"""Rounding may move a group away from its own request by this share of its channels."""
_FAR = 0.15
"""The same limit for a group that compensates for others."""
MISS = 0.02
"""All groups together may miss the request by this share of their channels."""


@dataclass(frozen=True)
class Span:
    """The channels of one group, which are removed together.

    Attributes:
        size: number of channels.
        unit: they are removed in multiples of this (heads of attention, groups of a convolution).
        multiple: the remaining number is divisible by this.
        wish: the requested remaining number.
        least: the smallest remaining number.
        weight: factor of its channels in the total, about the number of its layers.
    """

    size: int
    unit: int
    multiple: int
    wish: float
    least: int
    weight: float

    def step(self, rounding: int) -> int:
        """Return the multiple of channels in which it is cut with this rounding."""
        return math.lcm(self.unit, self.multiple, rounding)

    def nearest(self, step: int) -> int:
        """Return the number of channels nearest to the request that this step allows."""
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
        round_to: every width becomes a multiple of this; None chooses a multiple for each group.
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
    """The largest step that leaves a group near its request."""
    for rounding in ROUNDINGS:
        step = span.step(rounding)
        if rounding <= largest and abs(span.nearest(step) - span.wish) <= _NEAR * span.size:
            return step
    return span.step(1)


def _excess(spans: Sequence[Span], kept: Sequence[int]) -> float:
    return sum(span.weight * (count - span.wish) for span, count in zip(spans, kept))


def _made_up(spans: Sequence[Span], steps: Sequence[int], farthest: float) -> list[int]:
    """Round every group, then move groups by single steps until the total is near the request.

    Args:
        spans: the groups.
        steps: the step of each group.
        farthest: no group is moved further from its request than this share of its size.
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
    """Return the largest rounding of which all `widths` are multiples; 1 if there are none."""
    return next(
        one for one in ROUNDINGS if (widths and all(w % one == 0 for w in widths)) or one == 1
    )


def width_of(layer: Any) -> int:
    """Return the output channels of a convolution or linear layer."""
    return int(getattr(layer, "out_channels", 0) or layer.out_features)


def layer_widths(module: nn.Module) -> dict[str, int]:
    """Return the output channels of every convolution and linear layer, by path."""
    layers = ((path, child) for path, child in module.named_modules() if isinstance(child, LAYERS))
    return {path: width_of(layer) for path, layer in layers}
