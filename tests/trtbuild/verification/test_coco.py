"""mAP against annotations, by cases that can be computed by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes import FakeBatch
from trtbuild.errors import DataError, OptionError
from trtbuild.options.preprocess import Preprocess
from trtbuild.verification.tasks.boxes import Detections
from trtbuild.verification.tasks.coco import MeanPrecision, average_precision, read_annotations
from trtbuild.verification.tasks.detect import Detect

if TYPE_CHECKING:
    from pathlib import Path


def coco(folder: Path, objects: list[tuple], size: tuple[int, int] = (100, 200), count: int = 2):
    """A file of `count` images ``0.jpg``, ... of height and width `size`; objects: image, id, box, crowd."""
    data = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.jpg", "height": size[0], "width": size[1]}
            for i in range(count)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 10 + image, "category_id": kind, "bbox": list(box), "iscrowd": crowd}
            for image, kind, box, crowd in objects
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(data))
    return path


def boxes(*found: tuple) -> Detections:
    """Boxes as corners, with a score and a class each."""
    rows = np.array([one[:6] for one in found], float).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int))


NOTHING = boxes()


def values(precision: MeanPrecision) -> list[float]:
    return [figure.estimate.value for figure in precision.figures()]


def test_one_of_three_boxes_is_wrong() -> None:
    found = average_precision(np.array([0.7, 0.9, 0.8]), np.array([True, True, False]), 2)
    # recalls 0 to .5 at precision 1, .51 to 1 at 2/3
    assert found == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(np.array([]), np.array([], bool), 2) == 0.0
    assert average_precision(np.array([0.5]), np.array([True]), 1) == 1.0


def test_precision_is_averaged_over_thresholds_and_categories(tmp_path: Path) -> None:
    path = coco(tmp_path, [(0, 3, (0, 0, 10, 10), 0), (1, 7, (20, 20, 10, 10), 0)])
    precision = MeanPrecision(read_annotations(path))
    # classes are categories in the order of their ids, 3 and 7; an IoU of 0.72 passes 5 of 10 thresholds
    engine = boxes((0, 0, 10, 7.2, 0.9, 0))
    precision.add("a/0.jpg", boxes((0, 0, 10, 10, 0.9, 0)), engine, (100, 200))
    precision.add("1.jpg", boxes((20, 20, 30, 30, 0.5, 1)), NOTHING, (100, 200))
    precision.add("of another data set.jpg", NOTHING, NOTHING, (100, 200))
    assert values(precision) == pytest.approx([100.0, 25.0, 75.0])
    low, high = precision.figures()[2].estimate.low, precision.figures()[2].estimate.high
    assert low < 75.0 < high


def test_a_second_box_on_an_object_is_wrong_and_one_in_a_crowd_is_neither(tmp_path: Path) -> None:
    path = coco(tmp_path, [(0, 3, (0, 0, 10, 10), 0), (0, 3, (50, 50, 50, 50), 1)], count=1)
    precision = MeanPrecision(read_annotations(path))
    twice = boxes((0, 0, 10, 10, 0.95, 0), (0, 0, 10, 10, 0.9, 0))
    crowd = boxes((60, 60, 70, 70, 0.99, 0), (0, 0, 10, 10, 0.5, 0))
    precision.add("0.jpg", twice, crowd, (100, 200))
    assert values(precision)[:2] == pytest.approx([100.0, 100.0])
    assert average_precision(np.array([0.9, 0.95]), np.array([True, False]), 1) == 0.5


@pytest.mark.parametrize(
    ("preprocess", "box"),
    [
        # 100 x 200 pixels into 64 x 64
        (None, (6.4, 12.8, 12.8, 25.6)),
        (Preprocess(resize=(64, 64)), (6.4, 12.8, 12.8, 25.6)),
        (Preprocess(resize=64, letterbox=True), (6.4, 22.4, 12.8, 28.8)),
        (Preprocess(resize=64, crop=64), (-19.2, 12.8, -6.4, 25.6)),
        (None, (0.1, 0.2, 0.2, 0.4)),
    ],
)
def test_boxes_are_brought_back_to_the_image(tmp_path: Path, preprocess, box) -> None:
    annotations = read_annotations(coco(tmp_path, []), preprocess)
    found = annotations.placed("0.jpg", boxes((*box, 0.5, 0)), (64, 64))
    assert found.boxes == pytest.approx(np.array([[20, 20, 40, 40]]))


def test_annotations_name_images_whose_names_have_invisible_characters(tmp_path: Path) -> None:
    path = coco(tmp_path, [])
    path.write_text(path.read_text().replace("0.jpg", "a\u200d.jpg"))
    assert read_annotations(path).placed(r"set/a\u200d.jpg", NOTHING, (64, 64)) is not None


def test_a_hundred_boxes_of_an_image_count(tmp_path: Path) -> None:
    annotations = read_annotations(coco(tmp_path, []))
    many = boxes(*((0, 0, 5 + i, 9, 1 - i / 200, 0) for i in range(120)))
    assert len(annotations.placed("0.jpg", many, (64, 64)).boxes) == 100


def test_a_detector_is_held_against_annotations(tmp_path: Path) -> None:
    path = coco(tmp_path, [(0, 3, (10, 10, 20, 20), 0)], size=(64, 64), count=1)
    rows = np.zeros((1, 6, 20), np.float32)
    rows[0, :, 3] = (20, 20, 20, 20, 0.01, 0)  # below any threshold but that of mAP
    task = Detect("yolov8", annotations=read_annotations(path))
    batch = FakeBatch({"x": np.zeros((1, 3, 64, 64), np.float32)}, None, ["0.jpg"])
    task.add(batch, {"y": rows}, {"y": np.zeros_like(rows)})
    found = task.result()
    assert found.main is None
    assert {one.name: one.estimate.value for one in found.others} == pytest.approx(
        {"mAP of float": 100.0, "mAP of the engine": 0.0, "mAP lost": 100.0}
    )


def test_files_and_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    precision = MeanPrecision(read_annotations(coco(tmp_path, [])))
    precision.add("image 3", NOTHING, NOTHING, (64, 64))
    with pytest.raises(OptionError, match="file name"):
        precision.figures()
    path = tmp_path / "other.json"
    path.write_text('{"images": []}')
    with pytest.raises(DataError, match="not a COCO file"):
        read_annotations(path)
