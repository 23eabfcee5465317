"""Boxes as corners: intersection over union, non-maximum suppression, and matching of two sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Detections", "Match", "corners", "matched", "pairwise_iou", "suppressed"]

# Candidates per image that are considered, best first.
_MOST_CANDIDATES = 1_000
_MOST_BOXES = 300


@dataclass(frozen=True)
class Detections:
    """Boxes of one image.

    Attributes:
        boxes: corners x1, y1, x2, y2, float ``[n, 4]``, in any unit.
        scores: float ``[n]``, best first if they come from `suppressed`.
        classes: int ``[n]``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: np.ndarray) -> Detections:
        """Return the boxes that an index array or a mask selects."""
        return Detections(self.boxes[index], self.scores[index], self.classes[index])


@dataclass(frozen=True)
class Match:
    """A box of each set that show the same object: their indices, IoU and score difference."""

    first: int
    second: int
    iou: float
    score_difference: float


def corners(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return boxes ``[..., 4]`` from centres and sizes ``[..., 2]``."""
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU of every box of `first` with every box of `second`; boxes without area have 0."""
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
    """Return the boxes above a score after greedy non-maximum suppression per class, best first.

    That is how detectors are deployed. Only the 1000 best candidates are considered, and at most 300 boxes
    are kept.

    Args:
        found: candidates.
        min_score: only boxes with a higher score are kept.
        max_iou: a box with more overlap than this with a better one of its class is dropped; None keeps all.
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
    """Return the pairs of boxes of the same class with an IoU above `min_iou`.

    Each box of `first`, in order, takes the unmatched box of `second` with the largest IoU.
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
