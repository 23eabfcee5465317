"""Comparing two sessions on the same batches; the result is saved, read and judged again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes import FakeBatch, FunctionSession, batches_of
from trtbuild.errors import DataError, InputError, ModelError, OptionError
from trtbuild.options.compare import load_metric
from trtbuild.verification.compare import Comparison, ComparisonOptions, compare, compare_each
from trtbuild.verification.gate import Gate, judge

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = np.random.default_rng(5).normal(size=(20, 6)).astype(np.float32)


def identity(x: np.ndarray) -> np.ndarray:
    return x


def coarse(x: np.ndarray) -> np.ndarray:
    return np.round(x * 4) / np.float32(4)


def test_accuracy_against_labels_is_counted_pairwise() -> None:
    labels = IMAGES.argmax(1)
    labels[:3] = (labels[:3] + 1) % 6  # the float network is wrong on three images

    def wrong_on_two_more(x: np.ndarray) -> np.ndarray:
        flipped = x.copy()
        for row in flipped:
            if any(np.array_equal(row, IMAGES[i]) for i in (7, 8)):
                row[:] = -row
        return flipped

    found = compare(
        FunctionSession(identity), FunctionSession(wrong_on_two_more), batches_of(IMAGES, labels)
    )
    assert found.accuracy.reference_percent.value == pytest.approx(85.0)
    assert found.accuracy.candidate_percent.value == pytest.approx(75.0)
    assert found.accuracy.drop_points.value == pytest.approx(10.0)
    assert (found.accuracy.only_reference_right, found.accuracy.only_candidate_right) == (2, 0)


def test_the_float_network_runs_once_for_several_candidates() -> None:
    reference = FunctionSession(identity)
    found = compare_each(
        reference,
        {"same": FunctionSession(identity), "coarse": FunctionSession(coarse)},
        batches_of(IMAGES),
    )
    assert reference.num_runs == 5
    assert found["same"].output("y").max_error == 0.0
    assert found["coarse"].output("y").max_error > 0.0


def test_a_saved_comparison_is_the_same_and_can_be_judged_with_other_limits(tmp_path: Path) -> None:
    labels = IMAGES.argmax(1)
    found = compare(
        FunctionSession(identity),
        FunctionSession(coarse),
        batches_of(IMAGES, labels),
        ComparisonOptions(metrics={"mean": lambda outputs, labels, names: outputs["y"].mean(1)}),
    )
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(found.to_json(), allow_nan=False))
    again = Comparison.load(path)
    assert again == found
    sqnr = found.output("y").sqnr_db.value
    assert judge(again, Gate(min_sqnr=sqnr - 1)).passed
    strict = judge(again, Gate(min_sqnr=sqnr + 1, min_cosine=0.5))
    assert not strict.passed
    assert [finding.what for finding in strict.failures] == ["SQNR of 'y'"]


def test_a_comparison_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_text('{"schema": "trtbuild.comparison", "version": 99}')
    with pytest.raises(InputError, match="version 99"):
        Comparison.load(path)


def test_values_that_are_not_finite_fail_without_any_limit() -> None:
    found = compare(
        FunctionSession(identity), FunctionSession(lambda x: x * np.inf), batches_of(IMAGES)
    )
    verdict = judge(found, Gate())
    assert not verdict.passed
    assert not judge(found, Gate(min_sqnr=-1000.0)).findings[-1].passed


def test_a_limit_without_a_figure_is_an_error_and_never_passes() -> None:
    found = compare(FunctionSession(identity), FunctionSession(identity), batches_of(IMAGES))
    with pytest.raises(OptionError, match="--labels"):
        judge(found, Gate(max_top1_drop=1.0))


def test_a_drop_within_its_interval_is_not_settled() -> None:
    labels = IMAGES.argmax(1)
    found = compare(FunctionSession(identity), FunctionSession(coarse), batches_of(IMAGES, labels))
    near = judge(found, Gate(max_top1_drop=found.accuracy.drop_points.value + 0.01)).findings[-1]
    assert near.passed
    assert not near.settled


def test_the_figure_decides_and_not_the_end_of_its_interval() -> None:
    found = compare(FunctionSession(identity), FunctionSession(coarse), batches_of(IMAGES))
    sqnr = found.outputs[0].sqnr_db
    assert sqnr.low < sqnr.value < sqnr.high
    for limit, passed in ((sqnr.value - 1e-6, True), (sqnr.value + 1e-6, False)):
        finding = judge(found, Gate(min_sqnr=limit)).findings[-1]
        assert (finding.passed, finding.settled) == (passed, False)
    assert judge(found, Gate(min_sqnr=sqnr.low - 1e-6)).findings[-1].settled


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (FunctionSession(identity, outputs=("z",)), "outputs 'z'"),
        (FunctionSession(identity, input_name="pixels"), "inputs 'pixels'"),
    ],
)
def test_sessions_that_do_not_match(candidate: FunctionSession, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compare(FunctionSession(identity), candidate, batches_of(IMAGES))


def test_static_dims_that_contradict_each_other() -> None:
    with pytest.raises(ModelError, match=r"\[N, 6\].*\[N, 7\]|\[N, 7\].*\[N, 6\]"):
        compare(
            FunctionSession(identity, dims=("N", 6)),
            FunctionSession(identity, dims=("N", 7)),
            batches_of(IMAGES),
        )


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (FakeBatch({"x": IMAGES[:2, :5]}, None, ["a", "b"]), r"shape \[2, 5\]"),
        (FakeBatch({"x": IMAGES[:2].astype(np.float64)}, None, ["a", "b"]), "float64"),
        (FakeBatch({"pixels": IMAGES[:2]}, None, ["a", "b"]), "'pixels'"),
        (FakeBatch({"x": IMAGES[:2]}, np.array([1]), ["a", "b"]), "1 label for 2 samples"),
        (FakeBatch({"x": IMAGES[:2]}, np.array([1, 6]), ["a", "b"]), "6 classes"),
    ],
)
def test_batches_that_do_not_fit(batch: FakeBatch, message: str) -> None:
    session = FunctionSession(identity, dims=("N", 6))
    with pytest.raises(DataError, match=message):
        compare(session, session, [batch])


def test_no_batch_at_all() -> None:
    with pytest.raises(DataError, match="no sample"):
        compare(FunctionSession(identity), FunctionSession(identity), [])


def test_a_metric_of_the_user_is_averaged_over_images_and_not_batches() -> None:
    def positive(outputs: dict, labels: object, names: list) -> np.ndarray:
        return (outputs["y"][:, 0] > 0).astype(float)

    found = compare(
        FunctionSession(identity),
        FunctionSession(np.negative),
        batches_of(IMAGES, batch_size=7),
        ComparisonOptions(metrics={"positive": positive}),
    )
    share = float((IMAGES[:, 0] > 0).mean())
    assert found.metrics[0].reference == pytest.approx(share)
    assert found.metrics[0].drop.value == pytest.approx(2 * share - 1)


def test_a_metric_class_answers_for_the_whole_set() -> None:
    class Largest:
        def __init__(self) -> None:
            self.value = -np.inf

        def __call__(self, outputs: dict, labels: object, names: list) -> None:
            self.value = max(self.value, float(outputs["y"].max()))

        def result(self) -> float:
            return self.value

    found = compare(
        FunctionSession(identity),
        FunctionSession(lambda x: x - 1),
        batches_of(IMAGES),
        ComparisonOptions(metrics={"largest": Largest}),
    )
    assert found.metrics[0].reference == IMAGES.max()
    assert found.metrics[0].drop.value == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("answer", [None, "good", np.nan, np.ones(3)])
def test_a_metric_that_gives_no_number(answer: object) -> None:
    options = ComparisonOptions(metrics={"mine": lambda *_: answer})
    with pytest.raises(OptionError, match="'mine' returned"):
        compare(FunctionSession(identity), FunctionSession(identity), batches_of(IMAGES), options)


def test_a_metric_that_raises() -> None:
    options = ComparisonOptions(metrics={"mine": lambda *_: {}["boxes"]})
    with pytest.raises(OptionError, match="'mine' raised KeyError: 'boxes'"):
        compare(FunctionSession(identity), FunctionSession(identity), batches_of(IMAGES), options)


@pytest.mark.parametrize(
    "reference", ["nocolon", "no_such_module_here:f", "math:no_such_function", "math:pi"]
)
def test_metrics_that_cannot_be_imported(reference: str) -> None:
    with pytest.raises(OptionError, match=reference.partition(":")[0]):
        load_metric(reference)
