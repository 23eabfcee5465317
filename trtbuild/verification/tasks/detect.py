"""Detection: the boxes of both networks, after suppression, matched with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.intervals import Moments, ratio_of_sums
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    Seen,
    TaskScore,
    Worst,
    named,
)
from trtbuild.verification.tasks.boxes import Detections, matched, suppressed
from trtbuild.verification.tasks.coco import LARGEST_SHARE, MeanPrecision
from trtbuild.verification.tasks.layouts import LAYOUTS, Images
from trtbuild.verification.views import Answer, Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.verification.batch import LabelledBatch
    from trtbuild.verification.tasks.coco import Annotations

__all__ = ["Detect"]

MIN_SCORE = 0.25
MAX_IOU = 0.45
SAME_OBJECT_IOU = 0.5

# Average precision needs boxes of nearly all scores.
_ANY_SCORE = 0.001


class Detect(Judge):
    """F1 of the engine's boxes against the float network's: ``2 pairs / (boxes of both networks)``.

    The boxes of a pair have the same class and an IoU above 0.5; float's boxes choose their partners, the
    best score first. An image in which neither network finds a box is not counted.

    Args:
        layout: meaning of the outputs: a key of `trtbuild.verification.tasks.layouts.LAYOUTS`.
        min_score: boxes with a higher score count; None for 0.25.
        num_classes: see `trtbuild.verification.tasks.layouts.Images`.
        annotations: known objects of the images; with them mAP is measured, too.
        is_guess: whether the layout is guessed; `add` then raises if float's first batch with a box shows
            that the outputs are not boxes in images.
    """

    def __init__(
        self,
        layout: str,
        min_score: float | None = None,
        num_classes: int | None = None,
        annotations: Annotations | None = None,
        *,
        is_guess: bool = False,
    ) -> None:
        self._is_unproven = is_guess
        self._layout = layout
        self._min_score = MIN_SCORE if min_score is None else min_score
        self._num_classes = num_classes
        self._precision = None if annotations is None else MeanPrecision(annotations)
        self._pairs: list[float] = []
        self._boxes: list[float] = []
        self._counts = np.zeros(2, np.int64)
        self._iou, self._difference = Moments(), Moments()
        self._worst = Worst()

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        count = len(batch.names)
        images = Images(count, *_size(batch.feeds), self._num_classes, reference)
        decode = LAYOUTS[self._layout]
        with np.errstate(invalid="ignore", over="ignore"):  # boxes that are not finite are dropped
            given = [decode(one, images) for one in (reference, candidate)]
        if self._is_unproven and not _are_boxes(given[0], images):
            raise OptionError(
                f"--task detect: float's outputs are not boxes in images, as layout {self._layout} has them"
                f" (offsets from anchors?); say --box-layout {self._layout} if they are, else give --judge."
            )
        self._is_unproven &= not any(map(len, given[0]))
        if self._precision is not None:
            every = (self._kept(one, _ANY_SCORE) for one in given)
            for name, wanted, found in zip(batch.names, *every):
                self._precision.add(name, wanted, found, (images.height, images.width))
        ours, theirs = (self._kept(one, self._min_score) for one in given)
        for name, wanted, found in zip(batch.names, ours, theirs):
            pairs = matched(wanted, found, SAME_OBJECT_IOU)
            boxes = len(wanted) + len(found)
            self._pairs.append(2.0 * len(pairs))
            self._boxes.append(float(boxes))
            self._counts += (len(wanted), len(found))
            for pair in pairs:
                self._iou.add(pair.iou)
                self._difference.add(pair.score_difference)
            if boxes:
                self._worst.add(name, 200.0 * len(pairs) / boxes)

    def _kept(self, found: Sequence[Detections], min_score: float) -> list[Detections]:
        max_iou = None if self._layout == "nms" else MAX_IOU
        return [suppressed(one, min_score, max_iou) for one in found]

    def result(self) -> TaskScore:
        """Return F1 (bootstrap over images), and the pairs' IoU and score difference (Student)."""
        ratio = ratio_of_sums(self._pairs, self._boxes)
        one_box = 200.0 / max(sum(self._boxes), 1.0)
        main = None if ratio is None else Figure("F1 of boxes", "%", ratio.times(100.0), one_box)
        others: tuple[Figure, ...] = ()
        if self._iou.count:
            others = (
                Figure("IoU of pairs", "", self._iou.estimate().within(0.0, 1.0)),
                Figure(
                    "score difference of pairs", "", self._difference.estimate().within(0.0, 1.0)
                ),
            )
        if self._precision is not None:
            others += self._precision.figures()
        settings = (
            f"layout {self._layout}, boxes above {self._min_score:g}, {self._counts[0]} of float and"
            f" {self._counts[1]} of this network"
        )
        return TaskScore("detect", settings, len(self._boxes), main, others, self._worst.result())

    def answers(self, seen: Seen) -> tuple[Answer, Answer]:
        """Return both networks' boxes; boxes that the other network has, too, are marked."""
        count, size = len(seen.batch.names), _size(seen.batch.feeds)
        images = Images(count, *size, self._num_classes, seen.reference)
        decode = LAYOUTS[self._layout]
        with np.errstate(invalid="ignore", over="ignore"):
            both = [
                self._kept([decode(one, images)[seen.row]], self._min_score)[0]
                for one in seen.outputs
            ]
        pairs = matched(both[0], both[1], SAME_OBJECT_IOU)
        ours, theirs = {pair.first for pair in pairs}, {pair.second for pair in pairs}
        return (
            _drawn(both[0], ours, images, seen.names),
            _drawn(both[1], theirs, images, seen.names),
        )


def _drawn(found: Detections, shared: set[int], images: Images, names: Mapping[int, str]) -> Answer:
    """The best boxes, as shares of the image."""
    boxes = found.boxes
    if boxes.size and np.abs(boxes).max() > LARGEST_SHARE:
        size = np.array([max(images.width, 1), max(images.height, 1)] * 2)
        boxes = boxes / size
    drawn = tuple(
        Box(
            (float(x1), float(y1), float(x2), float(y2)),
            f"{named(int(kind), names)} ({score:.2f})",
            place in shared,
        )
        for place, ((x1, y1, x2, y2), score, kind) in enumerate(
            zip(boxes[:_MOST_DRAWN], found.scores, found.classes)
        )
    )
    alone = len(found) - len(shared)
    text = f"{len(found)} {'box' if len(found) == 1 else 'boxes'}"
    if not alone:
        return Answer(text, drawn)
    named_ones = [box.label for box in drawn if not box.shared]
    more = ", ..." if alone > _MOST_NAMED else ""
    return Answer(f"{text}, {alone} unmatched: {', '.join(named_ones[:_MOST_NAMED])}{more}", drawn)


_MOST_DRAWN = 40
_MOST_NAMED = 2


def _are_boxes(found: Sequence[Detections], images: Images) -> bool:
    """Whether nearly all boxes have a size and lie in or near the image, and all scores are in 0 to 1."""
    if not images.height or not images.width:
        return False
    boxes = np.concatenate([one.boxes for one in found])
    scores = np.concatenate([one.scores for one in found])
    if not len(boxes):
        return True
    size = np.array([images.width, images.height])
    low, high = boxes[:, :2], boxes[:, 2:]
    centre = (low + high) / 2
    with np.errstate(invalid="ignore"):
        is_box = (high >= low).all(1) & (high - low <= 2 * size).all(1)
        is_near = ((centre >= -size / 2) & (centre <= 1.5 * size)).all(1)
        are_scores = bool(((scores >= 0) & (scores <= 1)).all())
    return are_scores and float(np.mean(is_box & is_near)) >= _MOST_OF_BOXES


# Share of cells that must hold valid boxes; cells with a low score may hold any values.
_MOST_OF_BOXES = 0.9


def _size(feeds: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Height and width of the images among the inputs, or of a single image; zeros if there are none."""
    for rank in (4, 3):  # torchvision's detectors take an image without a batch axis
        for array in feeds.values():
            if array.ndim != rank:
                continue
            first, second, third = map(int, array.shape[-3:])
            if first not in _CHANNELS and third in _CHANNELS:
                return first, second
            if rank == 4 or first in _CHANNELS:
                return second, third
    return 0, 0


_CHANNELS = (1, 3, 4)
