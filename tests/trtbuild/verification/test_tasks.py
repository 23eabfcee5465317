"""Judges of tasks against their definitions, on outputs with known answers."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.fakes import FakeBatch
from trtbuild.errors import OptionError
from trtbuild.json_codec import decode, encode
from trtbuild.verification.compare import Comparison
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.intervals import proportion, ratio_of_sums
from trtbuild.verification.ruling import floors, rule
from trtbuild.verification.tasks.base import TaskScore
from trtbuild.verification.tasks.boxes import Detections, matched, pairwise_iou, suppressed
from trtbuild.verification.tasks.classify import Classify
from trtbuild.verification.tasks.ctc import CTC, best_path, edit_distance
from trtbuild.verification.tasks.detect import Detect
from trtbuild.verification.tasks.embed import Embed, spearman
from trtbuild.verification.tasks.layouts import LAYOUTS, Images
from trtbuild.verification.tasks.restore import Restore
from trtbuild.verification.tasks.segment import Segment
from trtbuild.verification.tasks.user_judge import OwnJudge


def judged(task, reference: dict, candidate: dict, *, size: int = 3, labels=None, feeds=None):
    """Give `task` the outputs in batches of `size`; its score, read back from JSON."""
    count = len(next(iter(reference.values())))
    for start in range(0, count, size):
        rows = slice(start, start + size)
        names = [f"sample {i}" for i in range(count)][rows]
        inputs = feeds or {"x": np.zeros((count, 3, 64, 64), np.float32)}
        batch = FakeBatch(
            {name: array[rows] for name, array in inputs.items()},
            None if labels is None else labels[rows],
            names,
        )
        ours, theirs = ({k: v[rows] for k, v in one.items()} for one in (reference, candidate))
        task.add(batch, ours, theirs)
    found = task.result()
    assert decode(TaskScore, json.loads(json.dumps(encode(found))), "it") == found
    return found


def random_boxes(rng: np.random.Generator, count: int) -> Detections:
    low = rng.uniform(0, 40, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, (count, 2))], 1)
    return Detections(boxes, rng.uniform(size=count), rng.integers(0, 3, count))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes, by the definition."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
    return wide * high / (sum(areas) - wide * high)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40))
def test_suppression_is_the_greedy_one(seed: int, count: int) -> None:
    found = random_boxes(np.random.default_rng(seed), count)
    kept: list[int] = []
    for place in sorted(range(count), key=lambda i: -found.scores[i]):
        rivals = [k for k in kept if found.classes[k] == found.classes[place]]
        clear = all(iou(found.boxes[k], found.boxes[place]) <= 0.45 for k in rivals)
        if found.scores[place] > 0.2 and clear:
            kept.append(place)
    np.testing.assert_array_equal(suppressed(found, 0.2, 0.45).scores, found.scores[kept])


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), counts=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_matching_takes_the_best_free_box_of_the_class(seed: int, counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    first, second = (random_boxes(rng, count) for count in counts)
    free, expected = set(range(counts[1])), []
    for a in range(counts[0]):
        rivals = [b for b in free if second.classes[b] == first.classes[a]]
        best = max(rivals, key=lambda b: iou(first.boxes[a], second.boxes[b]), default=None)
        if best is not None and iou(first.boxes[a], second.boxes[best]) > 0.3:
            free.discard(best)
            expected.append(iou(first.boxes[a], second.boxes[best]))
    found = [match.iou for match in matched(first, second, 0.3)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_box_without_area_overlaps_nothing() -> None:
    flat = np.array([[5.0, 5.0, 5.0, 9.0]])
    assert pairwise_iou(flat, flat) == 0.0


# Two images; boxes as corners in pixels, a class and a score each.
TRUTH = [[((10, 10, 30, 40), 1, 0.9), ((5, 40, 25, 60), 0, 0.8)], [((32, 8, 56, 24), 2, 0.7)]]
GRID = [(8, 8), (4, 4), (2, 2)]  # of strides 8, 16, 32 in 64 x 64 pixels


def truth(image: int) -> list[tuple[list[float], int, float]]:
    return [(list(map(float, box)), kind, score) for box, kind, score in TRUTH[image]]


def centre(box) -> tuple[list[float], list[float]]:
    low, high = np.array(box[:2], float), np.array(box[2:], float)
    return list((low + high) / 2), list(high - low)


def rows_of(image: int, *, has_object: bool) -> np.ndarray:
    """YOLO's rows ``[84, 4 (+ 1) + 3]`` of one image; boxes stand in the first rows."""
    rows = np.zeros((84, 7 + has_object), np.float32)
    for place, (box, kind, score) in enumerate(truth(image)):
        middle, size = centre(box)
        rows[place, :4] = [*middle, *size]
        rows[place, 4 + has_object + kind] = score
        if has_object:
            rows[place, 4] = 1.0
    return rows


def yolov8() -> dict[str, np.ndarray]:
    return {"y": np.stack([rows_of(i, has_object=False).T for i in range(2)])}


def yolov5() -> dict[str, np.ndarray]:
    return {"y": np.stack([rows_of(i, has_object=True) for i in range(2)])}


def yolox() -> dict[str, np.ndarray]:
    rows = yolov5()["y"]
    cells = [
        (x, y, stride)
        for (high, wide), stride in zip(GRID, (8, 16, 32))
        for y, x in itertools.product(range(high), range(wide))
    ]
    for image, place in itertools.product(range(2), range(84)):
        x, y, stride = cells[place]
        box = rows[image, place]
        box[:2] = box[:2] / stride - (x, y)
        box[2:4] = np.log(np.maximum(box[2:4] / stride, 1e-6))
    return {"y": rows}


def ssd() -> dict[str, np.ndarray]:
    boxes, scores = np.zeros((2, 84, 4), np.float32), np.zeros((2, 84, 4), np.float32)
    scores[..., 0] = 1.0
    for image in range(2):
        for place, (box, kind, score) in enumerate(truth(image)):
            boxes[image, place] = np.array(box) / 64
            scores[image, place] = 0.0
            scores[image, place, kind + 1] = score
            scores[image, place, 0] = 1 - score
    return {"scores": scores, "boxes": boxes}


def detr() -> dict[str, np.ndarray]:
    found = ssd()
    boxes = found["boxes"]
    middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    logits = np.log(np.maximum(np.roll(found["scores"], -1, axis=2), 1e-6))
    return {"logits": logits, "pred_boxes": np.concatenate([middle, size], 2)}


def detr_of_sigmoids() -> dict[str, np.ndarray]:
    found = detr()
    scores = np.clip(ssd()["scores"][..., 1:], 1e-4, 1 - 1e-4)
    return {**found, "logits": np.log(scores / (1 - scores))}


def nms() -> dict[str, np.ndarray]:
    rows = np.zeros((2, 5, 6), np.float32)
    for image in range(2):
        for place, (box, kind, score) in enumerate(truth(image)):
            rows[image, place] = [*box, score, kind]
    return {"dets": rows}


def nms_of_several() -> dict[str, np.ndarray]:
    rows = nms()["dets"]
    return {
        "num_dets": np.array([[2], [1]], np.int32),
        "det_boxes": rows[..., :4],
        "det_scores": rows[..., 4],
        "det_classes": rows[..., 5].astype(np.int32),
    }


CASES = [
    ("yolov8", yolov8), ("yolov5", yolov5), ("yolox", yolox), ("ssd", ssd), ("detr", detr),
    ("detr", detr_of_sigmoids), ("nms", nms), ("nms", nms_of_several),
]  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "outputs"), CASES, ids=lambda one: getattr(one, "__name__", one)
)
def test_every_layout_gives_the_boxes_that_it_stands_for(layout: str, outputs) -> None:
    found = LAYOUTS[layout](outputs(), Images(2, 64, 64))
    for image in range(2):
        kept = suppressed(found[image], 0.25, 0.45)
        expected = truth(image)
        assert list(kept.classes) == [kind for _, kind, _ in expected]
        assert kept.scores == pytest.approx([score for _, _, score in expected], abs=1e-3)
        unit = 64 if layout in ("ssd", "detr") else 1
        assert kept.boxes * unit == pytest.approx(np.array([box for box, *_ in expected]), abs=1e-3)


def test_rows_with_the_index_of_their_image() -> None:
    rows = np.array([[0, 10, 10, 30, 40, 1, 0.9], [1, 32, 8, 56, 24, 2, 0.7]], np.float32)
    first, second = LAYOUTS["nms"]({"output": rows}, Images(2, 64, 64))
    assert (first.classes.tolist(), second.classes.tolist()) == ([1], [2])
    assert second.scores == pytest.approx([0.7])


def test_a_detector_without_scores_finds_nothing_and_with_one_box_less_two_of_three() -> None:
    whole, less = yolov8(), yolov8()
    less["y"][0, 4:, 1] = 0.0
    found = judged(Detect("yolov8"), whole, less)
    # 2 pairs, 3 and 2 boxes
    assert found.main.estimate.value == pytest.approx(80.0)
    assert found.main.unit == "%"
    assert [one.name for one in found.worst] == ["sample 0"]
    assert found.others[0].estimate.value == pytest.approx(1.0)
    none = {"y": whole["y"].copy()}
    none["y"][:, 4:] = 0.0
    assert judged(Detect("yolov8"), whole, none).main.estimate.value == 0.0
    assert judged(Detect("yolov8"), none, none).main is None


def test_a_box_that_moved_or_changed_its_class_is_another_object() -> None:
    moved, other = yolov8(), yolov8()
    moved["y"][1, 0, 0] += 30
    other["y"][1, 4:, 0] = np.roll(other["y"][1, 4:, 0], 1)
    for changed in (moved, other):
        found = judged(Detect("yolov8"), yolov8(), changed)
        assert found.main.estimate.value == pytest.approx(100 * 4 / 6)
        low, high = found.main.estimate.low, found.main.estimate.high
        assert low <= found.main.estimate.value <= high


@pytest.mark.parametrize(("pixels", "is_same"), [(7, True), (9, False)])
def test_boxes_that_overlap_by_half_are_one_object(pixels: int, is_same: bool) -> None:
    """24 pixels wide, so the overlap is (24 - d) / (24 + d): 0.55 and 0.45."""
    moved = yolov8()
    moved["y"][1, 0, 0] += pixels
    f1 = judged(Detect("yolov8"), yolov8(), moved).main.estimate.value
    assert f1 == pytest.approx(100.0 if is_same else 100 * 4 / 6)


@pytest.mark.parametrize(("pixels", "is_one"), [(9, True), (10, False)])
def test_a_second_box_on_an_object_goes_above_an_overlap_of_045(pixels: int, is_one: bool) -> None:
    """0.4545 and 0.41."""
    twice = yolov8()
    twice["y"][1, :, 5] = twice["y"][1, :, 0]
    twice["y"][1, 0, 5] += pixels
    twice["y"][1, 4:, 5] *= 0.9
    f1 = judged(Detect("yolov8"), yolov8(), twice).main.estimate.value
    assert f1 == pytest.approx(100.0 if is_one else 100 * 6 / 7)


def test_a_mean_of_overlaps_has_no_interval_beyond_one() -> None:
    moved = yolov8()
    moved["y"][1, 0, 0] += 3
    overlaps = judged(Detect("yolov8"), yolov8(), moved).others[0].estimate
    assert 0.0 <= overlaps.low < overlaps.value < overlaps.high == 1.0


def test_what_stands_behind_the_scores_is_no_class() -> None:
    masks = np.full((2, 5, 84), 9.0, np.float32)
    outputs = {"y": np.concatenate([yolov8()["y"], masks], 1)}
    found = LAYOUTS["yolov8"](outputs, Images(2, 64, 64, num_classes=3))
    assert suppressed(found[0], 0.25, 0.45).classes.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("layout", "outputs", "words"),
    [
        ("yolox", {"y": np.zeros((1, 50, 8), np.float32)}, "strides"),
        ("yolov8", {"y": np.zeros((1, 10), np.float32)}, "needs an output"),
        ("ssd", {"y": np.zeros((1, 9, 4), np.float32)}, "needs outputs"),
        ("nms", {"y": np.zeros((1, 9, 4), np.float32)}, "needs an output"),
    ],
)
def test_outputs_of_another_layout_are_refused(layout: str, outputs: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        LAYOUTS[layout](outputs, Images(1, 64, 64))


def test_classes_and_labels() -> None:
    x = np.eye(8, dtype=np.float32)
    y = x.copy()
    y[[0, 1]] = y[[1, 0]]
    labels = np.arange(8)
    labels[2] = 5
    found = judged(Classify(), {"logits": x}, {"logits": y}, labels=labels)
    assert found.main.estimate.value == 75.0
    assert [one.estimate.value for one in found.others] == [87.5, 62.5]
    assert [one.name for one in found.worst] == ["sample 0", "sample 1"]


def steps_of(text: str, length: int = 12, blank: int = 0, classes: int = 6) -> np.ndarray:
    """Scores whose best path is `text`: every letter twice, a blank between."""
    path = [blank] * length
    for place, letter in enumerate(text):
        path[3 * place : 3 * place + 2] = [int(letter)] * 2
    return np.eye(classes, dtype=np.float32)[path]


@pytest.mark.parametrize(("blank", "texts"), [(0, ("1234", "55", "3")), (5, ("1234", "00", "3"))])
def test_ctc_reads_texts_whatever_the_blank_and_the_axes(blank: int, texts) -> None:
    x = np.stack([steps_of(text, blank=blank) for text in texts])
    y = np.stack([steps_of(text, blank=blank) for text in ("1324", texts[1], "")])
    found = judged(CTC(), {"p": x}, {"p": y})
    assert found.main.estimate.value == pytest.approx(100 / 3)
    # two substitutions and a deletion in 4 + 2 + 1 characters
    assert found.others[0].estimate.value == pytest.approx(100 * 3 / 7)
    assert found.worst[0].name == "sample 2"
    task = CTC()
    batch = FakeBatch({}, None, ["a", "b", "c"])
    task.add(batch, {"p": x.swapaxes(0, 1)}, {"p": y.swapaxes(0, 1)})
    assert task.result().main == found.main


def test_best_paths_and_edit_distances() -> None:
    assert best_path(np.array([0, 1, 1, 0, 1, 2, 2, 0]), 0) == (1, 1, 2)
    assert edit_distance((1, 2, 3), (1, 2, 3)) == 0
    assert edit_distance(tuple("kitten"), tuple("sitting")) == 3
    assert edit_distance((), (1, 2)) == 2


def test_embeddings_by_neighbours_order_and_cosine() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 8)).astype(np.float32)
    y = (x + 0.4 * rng.normal(size=x.shape)).astype(np.float32)
    found = judged(Embed(), {"e": x}, {"e": y}, size=7)
    a, b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))
    neighbours = [
        [
            max((j for j in range(30) if j != i), key=lambda j, i=i: one[i] @ one[j])
            for i in range(30)
        ]
        for one in (a, b)
    ]
    same = 100 * np.mean([p == q for p, q in zip(*neighbours)])
    assert found.main.estimate.value == pytest.approx(same)
    pairs = np.triu_indices(30, 1)
    expected = stats.spearmanr((a @ a.T)[pairs], (b @ b.T)[pairs]).statistic
    assert found.others[0].estimate.value == pytest.approx(expected, abs=1e-5)
    assert found.others[1].estimate.value == pytest.approx(float((a * b).sum(1).mean()), abs=1e-6)
    # samples with another neighbour are the worst; those that moved furthest come first
    cosines = (a * b).sum(1)
    moved = [i for i in range(30) if neighbours[0][i] != neighbours[1][i]]
    order = [f"sample {i}" for i in sorted(moved, key=lambda i: cosines[i])][:10]
    assert [one.name for one in found.worst][: len(order)] == order
    # the length of an embedding means nothing
    assert judged(Embed(), {"e": x}, {"e": 3 * x}).main.estimate.value == 100.0


def test_tokens_are_averaged_by_the_mask() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 4, 6)).astype(np.float32)
    y = x.copy()
    y[:, 3] = 100.0  # a padded token
    mask = np.ones((5, 4), np.int64)
    mask[:, 3] = 0
    found = judged(Embed(), {"h": x}, {"h": y}, feeds={"attention_mask": mask})
    assert found.others[1].estimate.value == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=20))
def test_ranks_of_equal_values_are_shared(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, float).T
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_masks_of_one_class_and_of_several() -> None:
    x = np.zeros((2, 1, 4, 4), np.float32)
    x[0, 0, :2] = 0.9
    y = x.copy()
    y[0, 0, 1] = 0.1
    found = judged(Segment(), {"m": x}, {"m": y})
    # both masks of the second image are empty
    assert found.main.estimate.value == pytest.approx(50.0)
    assert judged(Segment(0.05), {"m": x}, {"m": y}).main.estimate.value == pytest.approx(100.0)
    logits = np.where(x > 0.5, 4.0, -4.0).astype(np.float32)
    other = np.where(y > 0.5, 4.0, -4.0).astype(np.float32)
    assert judged(Segment(), {"m": logits}, {"m": other}).main.estimate.value == pytest.approx(50.0)
    classes = np.concatenate([1 - x, x], 1)
    others = np.concatenate([1 - y, y], 1)
    # the first image: background 8 of 12, object 4 of 8; the second is background alone
    expected = 100 * ((8 / 12 + 4 / 8) / 2 + 1) / 2
    assert judged(Segment(), {"m": classes}, {"m": others}).main.estimate.value == pytest.approx(
        expected
    )


@pytest.mark.parametrize(("score", "overlap"), [(0.49, 0.0), (0.51, 100.0)])
def test_a_mask_is_where_a_score_is_above_a_half(score: float, overlap: float) -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, :2] = 0.9
    y = np.where(x > 0, np.float32(score), x)
    assert judged(Segment(), {"m": x}, {"m": y}).main.estimate.value == pytest.approx(overlap)


def test_images_by_their_peak() -> None:
    x = np.random.default_rng(0).uniform(size=(4, 3, 5, 5)).astype(np.float32)
    found = judged(Restore(), {"y": x}, {"y": x + np.float32(0.1)})
    # FP32 rounding of 0.1
    assert found.main.estimate.value == pytest.approx(20.0, abs=1e-4)
    found = judged(Restore(), {"y": 255 * x}, {"y": 255 * x + np.float32(25.5)})
    assert found.main.estimate.value == pytest.approx(20.0, abs=1e-4)
    assert judged(Restore(), {"y": x}, {"y": x * np.nan}).main.estimate.value == 0.0


def test_a_judge_of_the_users_own() -> None:
    def closeness(reference, candidate, labels, names):
        return -np.abs(reference["y"] - candidate["y"]).max(1)

    class Whole:
        title = "largest"

        def __init__(self) -> None:
            self.most = 0.0

        def __call__(self, reference, candidate, labels, names) -> None:
            self.most = max(self.most, float(np.abs(reference["y"] - candidate["y"]).max()))

        def result(self) -> float:
            return self.most

    x = np.arange(12.0).reshape(6, 2)
    y = x + np.arange(6.0)[:, None]
    found = judged(OwnJudge("m:closeness", closeness), {"y": x}, {"y": y})
    assert (found.main.name, found.main.estimate.value) == ("closeness", -2.5)
    assert math.isfinite(found.main.estimate.low)
    assert found.worst[0].name == "sample 5"
    found = judged(OwnJudge("m:Whole", Whole), {"y": x}, {"y": y})
    assert (found.main.name, found.main.estimate.value) == ("largest", 5.0)
    with pytest.raises(OptionError, match="judge 'm:text' returned"):
        judged(OwnJudge("m:text", lambda *_: "good"), {"y": x}, {"y": y})
    with pytest.raises(OptionError, match=r"'m:broken' raised KeyError: 'no'.* dict of \['y'\]"):
        judged(OwnJudge("m:broken", lambda r, c, *_: r["no"]), {"y": x}, {"y": y})


@pytest.mark.parametrize("top", [1.0, 100.0])
@pytest.mark.parametrize("wrong", [0, 3])
def test_answers_of_an_own_judge_that_are_right_or_wrong_are_counted(top, wrong) -> None:
    def right(reference, candidate, labels, names):
        return top * (np.arange(len(names)) >= wrong)

    x = np.ones((10, 2))
    main = judged(OwnJudge("m:right", right), {"y": x}, {"y": x}, size=10).main
    share = proportion(10 - wrong, 10)
    assert main.estimate.value == pytest.approx(top * share.value)
    assert main.estimate.low == pytest.approx(top * share.low)
    assert main.estimate.high == pytest.approx(top * share.high)
    assert main.step == top / 10


@pytest.mark.parametrize("limit", [0.5, 95.0])  # of answers of 0 or 1, and of 0 or 100
def test_an_own_judge_that_calls_all_answers_wrong_fails_either_limit(limit) -> None:
    x = np.ones((30, 2))
    task = judged(OwnJudge("m:wrong", lambda *_: np.zeros(10)), {"y": x}, {"y": x}, size=10)
    verdict = judge(Comparison("net", 30, (), task=task), Gate(min_agreement=limit))
    assert [finding.passed for finding in verdict.findings] == [False]


def test_an_own_judge_that_finds_wrong_outputs_as_good_as_right_ones_is_doubted() -> None:
    class Always:
        def __call__(self, reference, candidate, labels, names) -> None:
            pass

        def result(self) -> float:
            return 100.0

    def names_only(reference, candidate, labels, names):
        return [len(name) for name in names]

    def closeness(reference, candidate, labels, names):
        return -np.abs(reference["y"] - candidate["y"]).mean(1)

    def breaks_on_zeros(reference, candidate, labels, names):
        return reference["y"][:, 0] / candidate["y"].max(1)

    x = 1.0 + np.arange(24.0).reshape(12, 2)
    for judge_of in (lambda *_: 100, Always, names_only):
        found = judged(OwnJudge("m:same", judge_of), {"y": x}, {"y": x}, size=1)
        assert "cannot tell wrong from right" in found.doubt
        verdict = judge(Comparison("net", 12, (), task=found), Gate(min_agreement=1))
        below = floors({"net": Comparison("net", 12, (), task=found)}, [verdict])
        assert rule([verdict], below).word == "NOT JUDGED"
    for judge_of in (closeness, breaks_on_zeros):
        with np.errstate(divide="ignore"):
            found = judged(OwnJudge("m:tells", judge_of), {"y": x}, {"y": x}, size=1)
        assert found.doubt == ""


def test_an_own_judge_by_labels_is_not_doubted_where_float_is_wrong_at_first() -> None:
    # in the first three batches, no output is right
    labels = np.array([2, 3] * 6 + [0] * 4)

    def right(reference, candidate, labels, names):
        return candidate["y"].argmax(1) == labels

    y = np.tile([9.0, 1.0, 0.0, 0.0, 7.0], (16, 1))
    found = judged(OwnJudge("m:right", right), {"y": y}, {"y": y}, labels=labels, size=4)
    assert found.main.estimate.value == 0.25
    assert found.doubt == ""


def test_the_bootstrap_interval_is_that_of_its_resamples_and_repeats() -> None:
    rng = np.random.default_rng(3)
    bottom = rng.integers(0, 6, 200).astype(float)
    top = np.minimum(bottom, rng.integers(0, 6, 200))
    found = ratio_of_sums(top, bottom)
    assert found == ratio_of_sums(top, bottom)
    assert found.value == pytest.approx(top.sum() / bottom.sum())
    # a large sample: near the normal interval of the delta method
    residual = top - found.value * bottom
    half = 1.96 * residual.std(ddof=1) * np.sqrt(200) / bottom.sum()
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert ratio_of_sums([0.0], [0.0]) is None
    whole = ratio_of_sums([2.0, 1.0], [2.0, 1.0])
    assert whole.value == whole.high == 1.0
    assert whole.low < 0.5


def test_what_is_blank_for_both_says_nothing_of_a_reader() -> None:
    blank = np.tile(np.eye(3, dtype=np.float32)[[0] * 8], (4, 1, 1))
    assert judged(CTC(), {"y": blank}, {"y": blank}).main is None
    one = blank.copy()
    one[0, 2] = [0, 1, 0]
    found = judged(CTC(), {"y": one}, {"y": blank})
    assert (found.main.estimate.value, found.num_samples) == (0.0, 4)


def test_equal_samples_are_each_others_nearest_neighbours() -> None:
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.normal(size=(5, 16)), 3, axis=0).astype(np.float32)
    noisy = rows + rng.normal(size=rows.shape).astype(np.float32) * 1e-3
    assert judged(Embed(), {"y": rows}, {"y": noisy}).main.estimate.value == 100.0
    # equal vectors have no nearest one
    alike = np.ones((6, 16), np.float32)
    assert judged(Embed(), {"y": alike}, {"y": noisy[:6]}).main is None
    # a collapsed engine finds none
    assert judged(Embed(), {"y": rows}, {"y": np.ones_like(rows)}).main.estimate.value < 50


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", ["yolov5", "yolov8", "yolox", "detr", "nms"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_no_box_and_no_warning(layout: str, value: float) -> None:
    shapes = {"yolov8": {"y": (2, 7, 84)}, "nms": {"y": (2, 9, 6)}}
    shapes["detr"] = {"boxes": (2, 84, 4), "logits": (2, 84, 3)}
    given = shapes.get(layout, {"y": (2, 84, 8)})
    good = {name: np.full(shape, 0.9, np.float32) for name, shape in given.items()}
    bad = {name: np.full(shape, value, np.float32) for name, shape in given.items()}
    found = judged(Detect(layout), good, bad)
    assert found.main is None or found.main.estimate.value == 0.0


def test_equal_masks_of_a_few_images_prove_little() -> None:
    masks = np.zeros((3, 1, 8, 8), np.float32)
    masks[:, :, 2:5, 2:5] = 1
    found = judged(Segment(), {"y": masks}, {"y": masks}).main.estimate
    # Wilson's of 3 of 3
    assert (found.value, found.high) == (100.0, 100.0)
    assert found.low == pytest.approx(100 * 3 / (3 + 1.959964**2), rel=1e-6)


def test_f1_of_three_images_covers_its_truth() -> None:
    """Of 200 data sets of three images, 95 % of the intervals hold the F1 of all images, within 3 sigma."""
    rng = np.random.default_rng(0)

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        boxes = rng.poisson(5, count)
        found = rng.binomial(boxes, np.clip(0.8 + 0.1 * rng.normal(size=count), 0, 1))
        return 2.0 * found, (boxes + found + rng.poisson(0.5, count)).astype(float)

    pairs, boxes = images(200_000)
    truth = pairs.sum() / boxes.sum()
    found = [ratio_of_sums(*images(3)) for _ in range(200)]
    held = np.mean([one is None or one.holds(truth) for one in found])
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)


@pytest.mark.parametrize("shape", [(3, 48, 64), (48, 64, 3), (1, 3, 48, 64), (1, 48, 64, 3)])
def test_boxes_are_looked_for_in_a_single_image_with_or_without_a_batch_axis(shape) -> None:
    batch = FakeBatch({"image": np.zeros(shape, np.float32)}, None, ["one"])
    inside = {
        "boxes": np.array([[1, 2, 60, 40], [9, 9, 20, 20]], np.float32),
        "labels": np.array([1, 2]),
        "scores": np.array([0.9, 0.8], np.float32),
    }
    guessed = Detect("nms", is_guess=True)
    guessed.add(batch, inside, inside)
    assert guessed.result().main.estimate.value == 100.0
    for outside in (inside["boxes"] * 9, inside["boxes"][:, ::-1]):
        with pytest.raises(OptionError, match="not boxes in images"):
            Detect("nms", is_guess=True).add(batch, {**inside, "boxes": outside}, inside)


def test_an_image_without_boxes_does_not_show_that_outputs_are_boxes() -> None:
    batch = FakeBatch({"image": np.zeros((3, 48, 64), np.float32)}, None, ["one"])
    outputs = {
        "boxes": np.array([[1, 2, 60, 40]], np.float32),
        "labels": np.array([1]),
        "scores": np.array([0.9], np.float32),
    }
    none = {name: array[:0] for name, array in outputs.items()}
    guessed = Detect("nms", is_guess=True)
    guessed.add(batch, none, none)
    outside = {**outputs, "boxes": outputs["boxes"] * 9}
    with pytest.raises(OptionError, match="not boxes in images"):
        guessed.add(batch, outside, outside)
    guessed.add(batch, outputs, outputs)
    guessed.add(batch, outside, outside)  # the layout is known by now
    assert guessed.result().num_samples == 3
