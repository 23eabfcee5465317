"""Layouts of detectors' outputs: boxes, scores and classes of each image, before any threshold.

yolov8   [N, 4 + classes, A]: centre and size in pixels, a score for each class (also the axes swapped)
yolov5   [N, A, 5 + classes]: centre and size in pixels, the score of an object, a score for each class
yolox    the same, but boxes are offsets in their grid cell and logarithms of sizes, of strides 8, 16, 32 (64)
ssd      boxes [N, A, 4] as corners and scores [N, A, classes], of which the first is the background
detr     boxes [N, Q, 4] as centre and size, and logits [N, Q, classes]; by softmax, where the last class is
         "no object", or by sigmoid: float's outputs decide (with softmax most queries are "no object")
nms      suppressed already: [N, M, 6] or [M, 7], or separate outputs for boxes, scores and classes
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.tasks.base import Outputs, only
from trtbuild.verification.tasks.boxes import Detections, corners

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LAYOUTS", "Images", "Layout"]

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (32,), (16,), (8,), (4, 8, 16, 32), (8, 16))


@dataclass(frozen=True)
class Images:
    """What a layout needs to know besides the outputs.

    Attributes:
        count: images of the batch.
        height, width: of the input, in pixels; 0 if no input looks like images.
        num_classes: number of class scores after the box; None for all remaining channels.
        reference: the float network's outputs; for both networks they decide what shapes leave open.
    """

    count: int
    height: int
    width: int
    num_classes: int | None = None
    reference: Outputs = field(default_factory=dict)


Layout: TypeAlias = "Callable[[Outputs, Images], Sequence[Detections]]"


def _yolov8(outputs: Outputs, images: Images) -> Sequence[Detections]:
    rows = _rows(outputs, "yolov8")
    scores = rows[..., 4:]
    if images.num_classes is not None:
        scores = scores[..., : images.num_classes]
    return _best(corners(rows[..., :2], rows[..., 2:4]), scores)


def _yolov5(outputs: Outputs, images: Images) -> Sequence[Detections]:
    rows = _rows(outputs, "yolov5")
    scores = rows[..., 4:5] * rows[..., 5:]
    if images.num_classes is not None:
        scores = scores[..., : images.num_classes]
    return _best(corners(rows[..., :2], rows[..., 2:4]), scores)


def _yolox(outputs: Outputs, images: Images) -> Sequence[Detections]:
    rows = _rows(outputs, "yolox")
    cells, strides = _grid(rows.shape[1], images)
    centres = (rows[..., :2] + cells) * strides
    sizes = np.exp(np.clip(rows[..., 2:4], -20, 20)) * strides
    return _best(corners(centres, sizes), rows[..., 4:5] * rows[..., 5:])


def _grid(count: int, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """The grid cell of each box, ``[boxes, 2]``, and its stride in pixels, ``[boxes, 1]``."""
    for strides in _STRIDES:
        shapes = [(images.height // s, images.width // s) for s in strides]
        if sum(high * wide for high, wide in shapes) == count:
            cells = [
                np.stack(np.meshgrid(np.arange(wide), np.arange(high)), -1).reshape(-1, 2)
                for high, wide in shapes
            ]
            sizes = [np.full((len(one), 1), s) for one, s in zip(cells, strides)]
            return np.concatenate(cells), np.concatenate(sizes)
    raise OptionError(
        f"--box-layout yolox: {count} boxes do not fit strides 8, 16, 32 of an input of"
        f" {images.height} x {images.width}; of boxes in pixels it is --box-layout yolov5."
    )


def _rows(outputs: Outputs, layout: str) -> np.ndarray:
    """The first output of rank 3 as ``[images, boxes, channels]``; the longer axis is the boxes."""
    array = outputs[
        only(outputs, (3,), f"detect --box-layout {layout}", "[images, boxes, channels]")
    ]
    rows = array.swapaxes(1, 2) if array.shape[1] < array.shape[2] else array
    if rows.shape[2] < 5:
        raise OptionError(
            f"--box-layout {layout} needs an output with at least 5 channels, not {list(array.shape)}."
        )
    return rows.astype(np.float64)


def _best(boxes: np.ndarray, scores: np.ndarray) -> Sequence[Detections]:
    kinds = scores.argmax(-1)
    best = np.take_along_axis(scores, kinds[..., None], -1)[..., 0]
    return [Detections(*one) for one in zip(boxes, best, kinds)]


def _boxes_and_scores(outputs: Outputs, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """The outputs ``[N, A, 4]`` and ``[N, A, classes]``."""
    known = {name: _three(array) for name, array in outputs.items() if array.dtype.kind in "fV"}
    known = {name: array for name, array in known.items() if array.ndim == 3}
    for name in sorted(known, key=lambda one: ("box" not in one.lower(), "loc" not in one.lower())):
        boxes = known[name]
        others = [one for other, one in known.items() if other != name]
        fitting = [one for one in others if one.shape[:2] == boxes.shape[:2]]
        if boxes.shape[2] == 4 and fitting:
            return boxes.astype(np.float64), fitting[0].astype(np.float64)
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise OptionError(
        f"--box-layout {layout} needs outputs [images, boxes, 4] and [images, boxes, classes]; got {shapes}."
    )


def _three(array: np.ndarray) -> np.ndarray:
    """Remove the axis of length 1 that some exporters put between boxes and their values."""
    return array[:, :, 0] if array.ndim == 4 and array.shape[2] == 1 else array


def _ssd(outputs: Outputs, images: Images) -> Sequence[Detections]:
    boxes, scores = _boxes_and_scores(outputs, "ssd")
    _, wanted = _boxes_and_scores(images.reference or outputs, "ssd")
    if not _are_shares(wanted):
        scores = _softmax(scores)
    return _best(boxes, scores[..., 1:] if scores.shape[2] > 1 else scores)


def _detr(outputs: Outputs, images: Images) -> Sequence[Detections]:
    boxes, logits = _boxes_and_scores(outputs, "detr")
    _, wanted = _boxes_and_scores(images.reference or outputs, "detr")
    return _best(corners(boxes[..., :2], boxes[..., 2:]), _detr_scores(logits, wanted))


def _detr_scores(logits: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scores of the classes; see the module for the two kinds."""
    if _are_shares(reference):
        return logits
    if logits.shape[2] > 1 and _softmax(reference)[..., -1].mean() > 0.5:
        return _softmax(logits)[..., :-1]
    scores: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
    return scores


def _are_shares(values: np.ndarray) -> bool:
    return bool(np.min(values, initial=0.0) >= 0 and np.max(values, initial=0.0) <= 1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    found: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return found


def _nms(outputs: Outputs, images: Images) -> Sequence[Detections]:
    for array in outputs.values():
        if array.ndim == 3 and array.shape[2] == 6:
            return [_six(rows.astype(np.float64)) for rows in array]
        if array.ndim == 2 and array.shape[1] == 7:
            rows = array.astype(np.float64)
            return [_six(rows[rows[:, 0] == image, 1:]) for image in range(images.count)]
        if array.ndim == 2 and array.shape[1] == 6 and images.count == 1:
            return [_six(array.astype(np.float64))]
    return _separate(outputs, images)


def _six(rows: np.ndarray) -> Detections:
    """Rows of corners, score and class; class before score if only the fifth column holds whole numbers."""
    swapped = _is_whole(rows[:, 4]) and not _is_whole(rows[:, 5])
    score, kind = (5, 4) if swapped else (4, 5)
    return Detections(rows[:, :4], rows[:, score], rows[:, kind].round().astype(np.int64))


def _is_whole(values: np.ndarray) -> bool:
    return bool(np.array_equal(values, values.round()))


def _separate(outputs: Outputs, images: Images) -> Sequence[Detections]:
    given = images.reference or outputs
    boxes = [name for name, array in given.items() if _holds_boxes(array)]
    flat = [name for name in given if boxes and given[name].shape == given[boxes[0]].shape[:-1]]
    kinds = [name for name in flat if given[name].dtype.kind in "iu"]
    kinds += [name for name in flat if name not in kinds and _is_whole(given[name])]
    scores = [name for name in flat if name not in kinds[:1]]
    if not boxes or not kinds or not scores:
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in given.items())
        raise OptionError(
            "--box-layout nms needs an output [images, boxes, 6] or [boxes, 7], or boxes, scores and classes"
            f" as outputs of their own; got {shapes}."
        )
    box, score = (outputs[names[0]].astype(np.float64) for names in (boxes, scores))
    kind = outputs[kinds[0]].round().astype(np.int64)
    if box.ndim == 2:
        return [Detections(box, score, kind)]
    return [Detections(*one) for one in zip(box, score, kind)]


def _holds_boxes(array: np.ndarray) -> bool:
    return array.ndim in (2, 3) and array.shape[-1] == 4


LAYOUTS: dict[str, Layout] = {
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolox": _yolox,
    "ssd": _ssd,
    "detr": _detr,
    "nms": _nms,
}
"""By the values of ``--box-layout``."""
