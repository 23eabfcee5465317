"""Mean average precision against annotations in COCO's format, of the float network and the engine.

As COCO evaluates boxes (cocodataset.org/#detection-eval): at most 100 boxes per image, IoU thresholds .50 to
.95 in steps of .05, precision interpolated at 101 recalls, averaged over thresholds and categories that have
an object; boxes in a crowd count neither as hits nor as misses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import DataError, OptionError
from trtbuild.json_codec import load_json
from trtbuild.verification.intervals import CONFIDENCE, Estimate, student_quantile
from trtbuild.verification.tasks.base import Figure
from trtbuild.verification.tasks.boxes import Detections, pairwise_iou
from trtbuild.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trtbuild.options.preprocess import Preprocess

__all__ = ["Annotations", "MeanPrecision", "average_precision", "read_annotations"]

_THRESHOLDS = np.arange(0.5, 0.96, 0.05)
_RECALLS = np.linspace(0.0, 1.0, 101)
_MOST_BOXES = 100
_NUM_GROUPS = 20
# If no corner is further from zero than this, boxes are shares of the image.
LARGEST_SHARE = 2.0


@dataclass(frozen=True)
class _Image:
    height: int
    width: int
    truth: Detections
    is_crowd: np.ndarray


@dataclass(frozen=True)
class Annotations:
    """Objects by image name; classes are category ids.

    Attributes:
        images: file name, without folders -> its objects.
        categories: category ids, sorted.
        preprocess: how images became the network's input; None if they were stretched to its size.
    """

    images: Mapping[str, _Image]
    categories: tuple[int, ...]
    preprocess: Preprocess | None = None

    def placed(self, name: str, found: Detections, size: tuple[int, int]) -> Detections | None:
        """Return boxes in pixels of the image; None for an image without annotations.

        Args:
            name: the image's name; only the part after the last ``/`` counts.
            found: boxes in pixels of the network's input, or as shares of it.
            size: height and width of the input.
        """
        image = self.images.get(name.rpartition("/")[2])
        if image is None:
            return None
        boxes = found.boxes[:_MOST_BOXES]
        if boxes.size and np.abs(boxes).max() <= LARGEST_SHARE:
            boxes = boxes * [size[1], size[0], size[1], size[0]]
        factors, offsets = _placement(self.preprocess, (image.height, image.width), size)
        boxes = (boxes - np.tile(offsets[::-1], 2)) / np.tile(factors[::-1], 2)
        return Detections(boxes, found.scores[:_MOST_BOXES], found.classes[:_MOST_BOXES])


def _placement(
    preprocess: Preprocess | None, image: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Factors and offsets (height, width) that map a point of the image to a point of the input."""
    shape = np.array(image, float)
    if preprocess is None:
        return np.array(size) / shape, np.zeros(2)
    inner = resized = shape
    if preprocess.resize is not None:
        given = preprocess.resize
        target = np.array([given, given] if isinstance(given, int) else given, float)
        if preprocess.letterbox:
            inner, resized = np.round(shape * (target / shape).min()), target
        elif isinstance(given, int):
            inner = resized = np.round(shape * given / shape.min())
        else:
            inner = resized = target
    offsets = (resized - inner) // 2
    if preprocess.crop is not None:
        kept = preprocess.crop
        offsets = (
            offsets - (resized - np.array([kept, kept] if isinstance(kept, int) else kept)) // 2
        )
    return inner / shape, offsets


def read_annotations(path: Path, preprocess: Preprocess | None = None) -> Annotations:
    """Read a COCO file with instance annotations.

    Raises:
        InputError: it cannot be read, or is another kind of file.
    """
    data = load_json(path)
    try:
        boxes: dict[int, list[Mapping[str, Any]]] = {int(one["id"]): [] for one in data["images"]}
        for one in data["annotations"]:
            boxes[int(one["image_id"])].append(one)
        images = {
            visible(str(one["file_name"]).rpartition("/")[2]): _image(one, boxes[int(one["id"])])
            for one in data["images"]
        }
        categories = tuple(sorted(int(one["id"]) for one in data["categories"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"'{path}' is not a COCO file of instances: it should have images (id, file_name, height, "
            f"width), annotations (image_id, category_id, bbox) and categories (id); "
            f"{type(error).__name__} {error}."
        ) from error
    return Annotations(images, categories, preprocess)


def _image(record: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> _Image:
    low_and_size = np.array([one["bbox"] for one in objects], float).reshape(-1, 4)
    boxes = np.concatenate([low_and_size[:, :2], low_and_size[:, :2] + low_and_size[:, 2:]], 1)
    kinds = np.array([one["category_id"] for one in objects], np.int64)
    crowd = np.array([bool(one.get("iscrowd", 0)) for one in objects], bool)
    truth = Detections(boxes, np.ones(len(boxes)), kinds)
    return _Image(int(record["height"]), int(record["width"]), truth, crowd)


class MeanPrecision:
    """Collects the boxes of both networks, image by image."""

    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations
        self._images: list[_Image] = []
        self._found: tuple[list[Detections], list[Detections]] = ([], [])

    def add(
        self, name: str, reference: Detections, candidate: Detections, size: tuple[int, int]
    ) -> None:
        """Take the boxes of one image with any score, best first, in pixels of the input or shares of it."""
        placed = [self._annotations.placed(name, one, size) for one in (reference, candidate)]
        if placed[0] is None or placed[1] is None:
            return
        self._images.append(self._annotations.images[name.rpartition("/")[2]])
        for kept, one in zip(self._found, placed):
            assert one is not None
            kept.append(one)

    def figures(self) -> tuple[Figure, ...]:
        """Return mAP of both networks and the loss; intervals by leaving out each of 20 groups of images.

        Raises:
            OptionError: no sample has the name of an image in the file.
        """
        if not self._images:
            raise OptionError("--coco: no sample has the file name of an image in the annotations.")
        known = self._annotations.categories
        highest = max((int(one.classes.max(initial=0)) for one in self._found[0]), default=0)
        of_class = np.arange(highest + 1) if highest >= len(known) else np.array(known)
        of_float, of_engine = (self._by_images(found, of_class) for found in self._found)
        return (
            Figure("mAP of float", "%", _left_out(len(self._images), of_float)),
            Figure("mAP of the engine", "%", _left_out(len(self._images), of_engine)),
            Figure(
                "mAP lost", "points",
                _left_out(len(self._images), lambda kept: of_float(kept) - of_engine(kept)),
            ),
        )  # fmt: skip

    def _by_images(
        self, found: Sequence[Detections], of_class: np.ndarray
    ) -> Callable[[np.ndarray], float]:
        """A function from a mask of images to their mAP in percent."""
        tables = [
            _table(image, Detections(one.boxes, one.scores, of_class[one.classes.clip(0, len(of_class) - 1)]))
            for image, one in zip(self._images, found)
        ]  # fmt: skip

        def value(kept: np.ndarray) -> float:
            chosen = [table for table, is_kept in zip(tables, kept) if is_kept]
            return 100.0 * _mean_precision(chosen)

        return value


@dataclass(frozen=True)
class _Table:
    """One image's boxes matched with its objects: hits and ignored boxes ``[thresholds, boxes]``."""

    scores: np.ndarray
    classes: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def _table(image: _Image, found: Detections) -> _Table:
    hits = np.zeros((len(_THRESHOLDS), len(found)), bool)
    ignored = np.zeros_like(hits)
    for kind in np.unique(found.classes):
        of_kind = image.truth.classes == kind
        boxes = np.flatnonzero(found.classes == kind)
        single = image.truth.boxes[of_kind & ~image.is_crowd]
        crowd = image.truth.boxes[of_kind & image.is_crowd]
        overlaps = pairwise_iou(found.boxes[boxes], single)
        share = _share_inside(found.boxes[boxes], crowd)
        for row, threshold in enumerate(_THRESHOLDS):
            hits[row, boxes], ignored[row, boxes] = _assigned(overlaps, share, threshold)
    return _Table(found.scores, found.classes, hits, ignored, image.truth.classes[~image.is_crowd])


def _share_inside(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """The share of each box that lies in each crowd, ``[boxes, crowds]``."""
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    area = np.broadcast_to(
        np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)[:, None], inside.shape
    )
    share: np.ndarray = np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)
    return share


def _assigned(
    single: np.ndarray, crowd: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes, best first, hit an unmatched object; and which of the others lie in a crowd."""
    free = single.copy()
    hits = np.zeros(len(single), bool)
    for place in range(len(single)):
        best = int(free[place].argmax()) if free.shape[1] else -1
        if best >= 0 and free[place, best] >= threshold:
            hits[place] = True
            free[:, best] = -1.0
    in_crowd = crowd.max(1, initial=0.0) >= threshold
    return hits, in_crowd & ~hits


def _mean_precision(tables: Sequence[_Table]) -> float:
    """Mean over thresholds and categories with an object; 0 if there is none."""
    if not tables:
        return 0.0
    objects = np.concatenate([table.objects for table in tables])
    scores, classes = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("scores", "classes")
    )
    hits, ignored = (
        np.concatenate([getattr(table, name) for table in tables], 1)
        for name in ("hits", "ignored")
    )
    found = [
        average_precision(scores[of], row[of], int(np.count_nonzero(objects == kind)))
        for kind in np.unique(objects)
        for row, passed in zip(hits, ignored)
        for of in [np.flatnonzero((classes == kind) & ~passed)]
    ]
    return float(np.mean(found)) if found else 0.0


def average_precision(scores: np.ndarray, hits: np.ndarray, num_objects: int) -> float:
    """Return the average precision of one category at one threshold, at 101 recalls.

    Args:
        scores: scores of the boxes, in the order of images.
        hits: whether each box hit an object.
        num_objects: number of objects; at least one.
    """
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    recall = found / num_objects
    precision = found / np.arange(1, len(found) + 1)
    # the best precision at this recall or higher
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side="left")
    reached = places < len(precision)
    return float(precision[places[reached]].sum()) / len(_RECALLS)


def _left_out(count: int, value: Callable[[np.ndarray], float]) -> Estimate:
    """The value of all images, with the interval of the delete-a-group jackknife (Kott 2001)."""
    whole = value(np.ones(count, bool))
    groups = min(_NUM_GROUPS, count)
    if groups < 2:
        return Estimate(whole, -np.inf, np.inf)
    place = np.arange(count) % groups
    others = np.array([value(place != group) for group in range(groups)])
    spread = float(np.sqrt((groups - 1) / groups * ((others - whole) ** 2).sum()))
    half = student_quantile(0.5 + CONFIDENCE / 2, groups - 1) * spread
    return Estimate(whole, whole - half, whole + half)
