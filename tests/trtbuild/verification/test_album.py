"""Samples kept for the report: only the worst, as pictures, with both networks' answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from trtbuild.json_codec import decode, encode
from trtbuild.model.class_names import class_names
from trtbuild.options.preprocess import Preprocess
from trtbuild.verification.album import Album
from trtbuild.verification.distance import Distance
from trtbuild.verification.tasks.base import SampleScore, TaskScore
from trtbuild.verification.tasks.classify import Classify
from trtbuild.verification.tasks.ctc import CTC
from trtbuild.verification.tasks.detect import Detect
from trtbuild.verification.tasks.embed import Embed
from trtbuild.verification.tasks.restore import Restore
from trtbuild.verification.tasks.segment import Segment
from trtbuild.verification.views import LONGEST_SIDE, Answer, View, as_pixels

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Batch:
    feeds: dict
    names: tuple
    labels: np.ndarray | None = None


def shown(task, feeds, reference, candidate, labels=None, names=None):
    """The worst samples of one batch by name, with their views."""
    count = len(next(iter(feeds.values())))
    batch = Batch(feeds, tuple(f"s{i}" for i in range(count)), labels)
    task.add(batch, reference, candidate)
    album = Album(None, names or {})
    album.add(task, batch, reference, candidate)
    return {one.name: one.view for one in album.shown(task.result()).worst}


def test_pixels_come_back_from_what_preprocessing_made() -> None:
    pixels = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    for preprocess in (
        Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocess(color="BGR", mean=(104.0, 117.0, 123.0)),
        Preprocess(layout="NHWC"),
    ):
        made = preprocess.apply(pixels)[0]
        np.testing.assert_array_equal(as_pixels(made, preprocess), pixels)


@pytest.mark.parametrize("factor", [1.0, 1 / 255])
def test_bytes_and_shares_are_brightness_without_preprocessing(factor: float) -> None:
    pixels = RNG.integers(0, 256, (3, 4, 7))
    found = as_pixels(pixels * factor)
    np.testing.assert_array_equal(found, pixels.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("black", "white"),
    [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)],
)
def test_restored_images_are_as_bright_as_they_are(black: float, white: float) -> None:
    pixels = RNG.integers(0, 256, (2, 3, 4, 7))
    pixels[0, 0, 0, :2] = 0, 255
    clean = black + pixels / 255 * (white - black)
    made = clean.copy()
    made[0, 0, 0, :2] += np.array([-0.02, 0.04]) * (
        white - black
    )  # the network's output exceeds the range
    view = shown(Restore(), {"x": clean}, {"y": clean}, {"y": made})["s0"]
    for answer in (view.reference, view.candidate):
        np.testing.assert_array_equal(answer.picture, pixels[0].transpose(1, 2, 0))


def test_shares_beyond_one_are_not_black() -> None:
    assert as_pixels(np.linspace(0.0, 1.05, 27).reshape(3, 3, 3)).max() == 255


def test_any_values_become_a_picture_of_bounded_size() -> None:
    wild = RNG.normal(size=(3, 40, 4 * LONGEST_SIDE)) * 1e6
    wild[0, 0, :3] = np.nan, np.inf, -np.inf
    found = as_pixels(wild)
    assert found.dtype == np.uint8
    assert found.shape == (10, LONGEST_SIDE, 3)
    assert as_pixels(np.zeros((7, 4, 5))) is None


def test_classes_are_called_by_their_names_and_held_against_labels() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2]])
    found = shown(
        Classify(),
        {"x": np.ones((2, 3, 4, 4))},
        {"y": scores},
        {"y": scores[:, ::-1].copy()},
        labels=np.array([1, 1]),
        names={1: "cat"},
    )
    assert found["s0"].reference == Answer("cat, score 0.9, right")
    assert found["s0"].candidate == Answer("class 0, score 0.9, wrong: it is cat")
    assert found["s1"].reference.text.endswith("wrong: it is cat")
    assert found["s0"].picture.shape == (4, 4, 3)


def test_without_a_task_the_samples_furthest_from_float_are_kept() -> None:
    feeds = {"x": RNG.random((3, 3, 4, 4)), "t": np.arange(3)}
    y = np.ones((3, 5))
    given = y + np.array([[0.1], [0.0], [0.2]])
    task = Distance()
    batch = Batch(feeds, ("s0", "s1", "s2"))
    task.add(batch, {"y": y, "ids": np.arange(3)}, {"y": given, "ids": np.arange(3)})
    album = Album()
    album.add(task, batch, {"y": y}, {"y": given})
    found = album.viewed(task.worst)
    assert [one.name for one in found] == ["s2", "s0"]
    # 20 log10(1 / 0.2)
    assert found[0].value == pytest.approx(13.9794, abs=1e-4)
    assert found[0].view.picture.shape == (4, 4, 3)
    # inputs that are no picture give no view
    words = Album()
    words.add(task, Batch({"t": np.arange(3)}, ("s0", "s1", "s2")), {"y": y}, {"y": given})
    assert [one.view for one in words.viewed(task.worst)] == [None, None]


def test_texts_are_written_in_characters_where_those_are_known() -> None:
    x = np.eye(4)[[[0, 1, 1, 0, 2, 0], [0, 3, 0, 0, 0, 0]]]
    y = np.eye(4)[[[0, 1, 1, 0, 3, 0], [0, 0, 0, 0, 0, 0]]]
    feeds = {"x": np.ones((2, 3, 4, 4))}
    found = shown(CTC(), feeds, {"y": x}, {"y": y}, names={1: "a", 2: "b", 3: "c"})
    assert (found["s0"].reference.text, found["s0"].candidate.text) == ("ab", "ac")
    assert found["s1"].candidate.text == "(nothing)"
    assert shown(CTC(), feeds, {"y": x}, {"y": y})["s0"].reference.text == "classes 1 2"


def test_boxes_are_shares_of_the_picture_and_say_which_are_shared() -> None:
    def outputs(*boxes):
        rows = np.zeros((1, 9, 30))
        for place, (x, y, size, score, kind) in enumerate(boxes):
            rows[0, :4, place] = x, y, size, size
            rows[0, 4 + kind, place] = score
        return {"y": rows}

    found = shown(
        Detect("yolov8"),
        {"x": np.ones((1, 3, 100, 200))},
        outputs((50, 50, 20, 0.9, 0), (150, 50, 20, 0.8, 1)),
        outputs((51, 50, 20, 0.9, 0)),
        names={1: "dog"},
    )["s0"]
    both, missed = found.reference.boxes
    assert both.shared
    assert both.corners == pytest.approx((0.2, 0.4, 0.3, 0.6))
    assert not missed.shared
    assert missed.label == "dog (0.80)"
    assert found.reference.text == "2 boxes, 1 unmatched: dog (0.80)"
    assert [one.shared for one in found.candidate.boxes] == [True]


def test_masks_are_pictures_and_neighbours_are_named() -> None:
    x = np.zeros((1, 1, 8, 8))
    x[..., :4] = 1.0
    y = x.copy()
    y[..., :2] = 0.0
    found = shown(Segment(), {"x": x}, {"y": x}, {"y": y})["s0"]
    assert found.reference.text == "32 pixels"
    assert (found.candidate.picture[:, :2] == 0).all()
    assert (found.candidate.picture[:, 2:4] > 0).any()
    scores = np.zeros((1, 3, 8, 8))
    scores[:, 1, :4] = scores[:, 2, :, 6:] = 1.0
    several = Segment()
    view = shown(several, {"x": x}, {"y": scores}, {"y": scores[:, ::-1]})["s0"]
    assert view.reference.text == "3 classes"
    assert several.result().settings == "output 'y', a class for each pixel"
    vectors = np.eye(4)[[0, 0, 1, 1]] + 0.1 * np.eye(4)
    moved = vectors.copy()
    moved[1] = np.eye(4)[1]
    near = shown(Embed(), {"ids": np.ones((4, 2))}, {"y": vectors}, {"y": moved})["s1"]
    assert near.reference.text == "nearest is s0"
    assert near.candidate.text in ("nearest is s2", "nearest is s3")


def test_only_the_worst_are_kept() -> None:
    album, task = Album(), Segment()
    for number in range(40):
        mask = np.zeros((1, 1, 10, 10))
        mask[..., :5] = 1.0
        other = mask.copy()
        other[0, 0, : number // 4] = 0.0
        batch = Batch({"x": mask}, (f"s{number}",))
        task.add(batch, {"y": mask}, {"y": other})
        album.add(task, batch, {"y": mask}, {"y": other})
    views = {one.name: one.view for one in album.shown(task.result()).worst}
    assert len(views) == 10
    assert None not in views.values()


def test_views_stand_in_no_record() -> None:
    view = View(np.zeros((2, 2, 3), np.uint8), Answer("a"), Answer("b"))
    score = TaskScore("t", "", 1, None, worst=(SampleScore("s", 1.0, view),))
    assert encode(score)["worst"] == [{"name": "s", "value": 1.0}]
    assert decode(TaskScore, encode(score), "it").worst == (SampleScore("s", 1.0),)


def test_class_names_are_read_from_metadata() -> None:
    def model(**metadata):
        graph = ir.Graph([], [], nodes=[], opset_imports={"": 17})
        return ir.Model(graph, ir_version=9, metadata_props=metadata)

    assert class_names(model(names="{0: 'person', 1: 'car'}")) == {0: "person", 1: "car"}
    assert class_names(model(names="['a', 'b']")) == {0: "a", 1: "b"}
    assert class_names(model(character="a\nb")) == {1: "a", 2: "b", 3: " "}
    assert class_names(model(names="__import__('os')")) == {}
    assert class_names(model(names="3")) == {}
    assert class_names(model()) == {}
