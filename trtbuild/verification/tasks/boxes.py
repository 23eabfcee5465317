"""Boxes as corners: intersection over union, suppression of those that overlap, and matching of two sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Detections", "Match", "corners", "matched", "pairwise_iou", "suppressed"]

# So many candidates, the best ones, are looked at in an image.
_MOST_CANDIDATES = 1_000
_MOST_BOXES = 300


@dataclass(frozen=True)
class Detections:
    """Boxes of one image.

    Attributes:
        boxes: corners x1, y1, x2, y2, float ``[n, 4]``, in any unit.
        scores: float ``[n]``, the best first where `suppressed` gave them.
        classes: int ``[n]``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: np.ndarray) -> Detections:
        """Return the boxes of an index or a mask."""
        return Detections(self.boxes[index], self.scores[index], self.classes[index])


@dataclass(frozen=True)
class Match:
    """A box of each set that mean the same object: their places, IoU and the difference of their scores."""

    first: int
    second: int
    iou: float
    score_difference: float


def corners(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return boxes ``[..., 4]`` from centres and sizes ``[..., 2]``."""
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU of every box of `first` with every one of `second`; boxes without area have 0."""
    a, b = first[:, None], second[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    union = _area(first)[:, None] + _area(second)[None] - inside
    found: np.ndarray = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return found


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)
    return area


def suppressed(found: Detections, min_score: float, max_iou: float | None) -> Detections:
    """Return the boxes above a score without those that overlap a better one of their class, best first.

    Greedy suppression, class by class, as detectors are deployed with it. Only the 1000 best candidates are
    looked at, and at most 300 boxes are kept.

    Args:
        found: candidates.
        min_score: they must lie above it.
        max_iou: more overlap than this with a better box of the same class drops one; None keeps all.
    """
    good = np.flatnonzero((found.scores > min_score) & np.isfinite(found.boxes).all(1))
    order = good[np.argsort(-found.scores[good], kind="stable")][:_MOST_CANDIDATES]
    best = found.take(order)
    if max_iou is None or not len(best):
        return best.take(np.arange(min(len(best), _MOST_BOXES)))
    overlaps = pairwise_iou(best.boxes, best.boxes) > max_iou
    overlaps &= best.classes[:, None] == best.classes[None]
    kept = np.ones(len(best), bool)
    for place in range(len(best)):
        if kept[place]:
            kept[place + 1 :] &= ~overlaps[place, place + 1 :]
    return best.take(np.flatnonzero(kept)[:_MOST_BOXES])


def matched(first: Detections, second: Detections, min_iou: float) -> list[Match]:
    """Return the pairs of boxes of one class with an IoU above `min_iou`.

    The boxes of `first`, in order, each take the free box of `second` that overlaps them most.
    """
    if not len(first) or not len(second):
        return []
    overlaps = pairwise_iou(first.boxes, second.boxes)
    overlaps[first.classes[:, None] != second.classes[None]] = 0.0
    pairs = []
    for place, row in enumerate(overlaps):
        best = int(row.argmax())
        if row[best] > min_iou:
            difference = abs(float(first.scores[place]) - float(second.scores[best]))
            pairs.append(Match(place, best, float(row[best]), difference))
            overlaps[:, best] = 0.0
    return pairs
