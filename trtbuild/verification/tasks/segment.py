"""Segmentation: intersection over union of the masks of both networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.intervals import Moments, percent_of_mean
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    Seen,
    TaskScore,
    Worst,
)
from trtbuild.verification.views import Answer, as_pixels
from trtbuild.wording import counted

if TYPE_CHECKING:
    from trtbuild.verification.batch import LabelledBatch

__all__ = ["Segment", "mask_iou"]

MIN_SCORE = 0.5


class Segment(Judge):
    """Averages the masks' IoU over images; with several classes, each image's mean over the classes it has.

    An output is ``[images, 1, height, width]`` or ``[images, height, width]`` of scores (the mask is where
    they exceed `min_score`, after a sigmoid if values lie outside 0 to 1), ``[images, classes, height,
    width]`` (the best class of each pixel), or integers (classes).

    Args:
        min_score: see above; None for 0.5.
        is_guess: whether the user has not said that the output is a mask; `add` then raises for scores of
            one channel that are not nearly 0 or 1 nearly everywhere.
    """

    def __init__(self, min_score: float | None = None, *, is_guess: bool = False) -> None:
        self._is_guess = is_guess
        self._min_score = MIN_SCORE if min_score is None else min_score
        self._output = ""
        self._iou = Moments()
        self._count = 0
        self._worst = Worst()
        self._is_logit: bool | None = None
        self._is_one_class = True

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        self._output = self._output or _map_of(reference, len(batch.names))
        x, y = reference[self._output], candidate[self._output]
        if self._is_logit is None:
            self._is_logit = bool(np.min(x, initial=0) < 0 or np.max(x, initial=0) > 1)
            self._is_one_class = not _has_classes(x)
            if self._is_guess and not _is_mask(x):
                raise OptionError(
                    "the values of the map are not masks, but depths, heat maps or others."
                )
        ours, theirs = self._classes(x), self._classes(y)
        for name, a, b in zip(batch.names, ours, theirs):
            self._count += 1
            found = mask_iou(a, b)
            if found is not None:
                self._iou.add(found)
                self._worst.add(name, 100.0 * found)

    @property
    def _what(self) -> str:
        """The kind of mask, in words."""
        return (
            f"masks above {self._min_score:g}" if self._is_one_class else "a class for each pixel"
        )

    def _classes(self, array: np.ndarray) -> np.ndarray:
        """The class of each pixel, ``[images, height, width]``; with a single class, 0 is the background."""
        if array.dtype.kind in "iub":
            return array.reshape(len(array), *array.shape[-2:])
        if _has_classes(array):
            found: np.ndarray = array.argmax(1) + 1
            return found
        threshold = self._min_score
        if self._is_logit:
            bounded = float(np.clip(threshold, 1e-9, 1 - 1e-9))
            threshold = float(np.log(bounded / (1 - bounded)))
        mask = array.reshape(len(array), *array.shape[-2:]).astype(np.float64) > threshold
        return mask.astype(np.int64)

    def result(self) -> TaskScore:
        """Return the mean IoU (Student's interval over images)."""
        main = Figure("mask IoU", "%", percent_of_mean(self._iou)) if self._iou.count else None
        settings = f"output '{self._output}', {self._what}"
        return TaskScore("segment", settings, self._count, main, (), self._worst.result())

    def answers(self, seen: Seen) -> tuple[Answer, Answer]:
        """Return both networks' masks."""
        ours, theirs = (
            self._classes(one[self._output][seen.row : seen.row + 1])[0] for one in seen.outputs
        )
        first, second = (_mask(one, is_one_class=self._is_one_class) for one in (ours, theirs))
        return first, second


def _mask(classes: np.ndarray, *, is_one_class: bool) -> Answer:
    """A mask with a colour for each class, on black."""
    text = (
        f"{np.count_nonzero(classes):,} pixels"
        if is_one_class
        else counted(len(np.unique(classes)), "class", "classes")
    )
    colors = _PALETTE[np.where(classes > 0, 1 + (classes - 1) % (len(_PALETTE) - 1), 0)]
    return Answer(text, picture=as_pixels(colors, between=(0.0, 255.0)))


# Black, then colours that people with red-green blindness can tell apart (Okabe and Ito 2008).
_PALETTE = np.array(
    [[0, 0, 0], [240, 228, 66], [86, 180, 233], [230, 159, 0], [0, 158, 115], [204, 121, 167]],
    np.uint8,
)


def _has_classes(values: np.ndarray) -> bool:
    """Whether a map holds several classes: whole numbers, or several channels of scores."""
    return values.dtype.kind in "iub" or (values.ndim == 4 and values.shape[1] > 1)


def _is_mask(values: np.ndarray) -> bool:
    """Whether scores of one channel are near 0 or 1 for nearly every pixel, and some are near 1."""
    if values.ndim != 4 or _has_classes(values):
        return True
    unsure = np.count_nonzero((values > _SURE) & (values < 1 - _SURE))
    return bool(unsure <= _UNSURE_SHARE * values.size and np.max(values, initial=0.0) > 1 - _SURE)


_SURE = 0.1
_UNSURE_SHARE = 0.2


def mask_iou(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the mean IoU over the classes from 1 on in either map; None if there are none."""
    found = []
    for label in np.union1d(first, second):
        if label == 0:
            continue
        a, b = first == label, second == label
        found.append(np.count_nonzero(a & b) / np.count_nonzero(a | b))
    return float(np.mean(found)) if found else None


def _map_of(outputs: Outputs, count: int) -> str:
    for name, array in outputs.items():
        if array.ndim in (3, 4) and array.shape[0] == count and min(array.shape[-2:]) > 1:
            return name
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise OptionError(
        f"--task segment needs an output [images, classes, height, width]; got {shapes}."
    )
