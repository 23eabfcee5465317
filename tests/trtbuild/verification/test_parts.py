"""Figures by part, compared with float64 NumPy; they show errors that a whole output hides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FunctionSession, batches_of
from trtbuild.json_codec import decode, encode
from trtbuild.model.parts import WHOLE, Part
from trtbuild.search.measured import Measure
from trtbuild.search.score import worst_sqnr_db
from trtbuild.verification.compare import Comparison, compare
from trtbuild.verification.gate import Gate, judge
from trtbuild.verification.parts import PartMetrics

BOXES, SCORES = Part(1, 0, 4, 10, "boxes"), Part(1, 4, 10, 10, "scores")
PARTS = {"y": (BOXES, SCORES)}


def detections(count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(4)
    boxes = rng.uniform(0, 320, (count, 4, 30))
    scores = rng.beta(0.2, 4, (count, 6, 30))
    return np.concatenate([boxes, scores], 1).astype(np.float32)


def without_scores(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[:, :4], np.zeros_like(x[:, 4:])], 1)


def compared(function, images: np.ndarray, batch_size: int = 4) -> Comparison:
    session = FunctionSession(lambda x: x)
    return compare(
        session, FunctionSession(function), batches_of(images, None, batch_size), parts=PARTS
    )


def test_an_engine_without_scores_fails_by_the_part_that_holds_them() -> None:
    found = compared(without_scores, detections())
    output = found.output("y")
    assert output.sqnr_db.value > 40
    assert output.worst_part == "channels 4 to 9 (axis 1)"
    assert output.judged_sqnr_db.value <= 0
    assert worst_sqnr_db(found) == output.judged_sqnr_db.value
    verdict = judge(found, Gate(min_sqnr=20))
    assert [failure.what for failure in verdict.failures] == [
        "SQNR of 'y', channels 4 to 9 (axis 1)"
    ]
    assert decode(Comparison, json.loads(json.dumps(encode(found))), "it") == found


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), batch_size=st.integers(1, 9), offset=st.floats(-50, 50))
def test_the_signal_is_the_variance_about_the_mean_of_each_channel(
    seed: int, batch_size: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    images = (offset + rng.normal(size=(9, 10, 7))).astype(np.float32)
    noise = rng.normal(size=images.shape).astype(np.float32)
    noisy = {image.tobytes(): image + row for image, row in zip(images, noise)}
    found = compared(lambda x: np.stack([noisy[row.tobytes()] for row in x]), images, batch_size)
    for part, figures in zip(PARTS["y"], found.output("y").parts):
        x = part.of(images).astype(np.float64)
        error = x - part.of(images + noise).astype(np.float64)
        signal = x.var(axis=(0, 2), ddof=1).sum() * 9 * 7
        expected = 10 * np.log10(signal / (error**2).sum())
        # FP32 inputs are exact in float64; 630 terms, relative rounding below 1e-12
        assert figures.sqnr_db.value == pytest.approx(expected, abs=1e-9)
        assert figures.sqnr_db.low < figures.sqnr_db.value < figures.sqnr_db.high


def test_the_mean_of_each_channel_for_everything_is_zero_decibels() -> None:
    images = detections(200)
    means = images.mean((0, 2), keepdims=True)
    found = compared(lambda x: np.broadcast_to(means, x.shape), images)
    # n / (n - 1) of 6000 values a channel
    assert [part.sqnr_db.value for part in found.output("y").parts] == pytest.approx(
        [0, 0], abs=1e-3
    )


def test_parts_are_left_out_where_the_output_does_not_have_them() -> None:
    found = compared(lambda x: x, detections()[:, :9])
    assert found.output("y").parts == ()
    assert found.output("y").worst_part == ""


def test_images_with_values_that_are_not_finite_are_left_out() -> None:
    images = detections()

    def spoilt(x: np.ndarray) -> np.ndarray:
        y = x + np.float32(0.01)
        y[np.all(x == images[3], axis=(1, 2))] = np.nan
        return y

    found = compared(spoilt, images)
    assert found.output("y").num_non_finite == 300
    assert np.isfinite(found.output("y").judged_sqnr_db.value)


def test_a_part_that_does_not_vary_is_measured_by_its_power() -> None:
    images = np.ones((5, 10, 3), np.float32)
    found = compared(lambda x: x * np.float32(0.5), images)
    expected = 20 * np.log10(2)
    assert [part.sqnr_db.value for part in found.output("y").parts] == pytest.approx([expected] * 2)


def power(part, reference, other):
    metrics = PartMetrics(part)
    metrics.add(reference, other)
    return metrics.power()


def test_powers_of_one_pair_of_arrays() -> None:
    x = detections()
    boxes, scores = (power(part, x, without_scores(x)) for part in PARTS["y"])
    assert boxes.noise == 0
    assert scores.noise == pytest.approx(float((x[:, 4:].astype(np.float64) ** 2).sum()))
    whole = power(WHOLE, x, without_scores(x))
    assert whole.signal == pytest.approx(float((x.astype(np.float64) ** 2).sum()))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), batch_size=st.integers(1, 9), offset=st.floats(-50, 50))
def test_cosine_and_relative_l2_of_a_part_are_about_the_means_of_float(
    seed: int, batch_size: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(9, 10, 7)).astype(np.float32) + np.float32(offset)
    y = x + rng.normal(size=x.shape).astype(np.float32)
    found = compare(
        FunctionSession(lambda x: x),
        FunctionSession(lambda given: np.stack([y[(x == row).all((1, 2))][0] for row in given])),
        batches_of(x, None, batch_size),
        parts=PARTS,
    ).output("y")
    for part, where in zip(found.parts, (slice(0, 4), slice(4, 10))):
        a, b = (one[:, where].astype(np.float64) for one in (x, y))
        mean = a.mean((0, 2), keepdims=True)
        truth = ((a - mean) * (b - mean)).sum() / np.sqrt(
            ((a - mean) ** 2).sum() * ((b - mean) ** 2).sum()
        )
        # subtracting the centre cancels from at most 50 to 1, in float64
        assert part.cosine.value == pytest.approx(truth, abs=1e-9)
        assert part.relative_l2.value == pytest.approx(10 ** (-part.sqnr_db.value / 20), rel=1e-9)


def test_cosine_and_relative_l2_are_judged_by_the_worst_part() -> None:
    found = compared(without_scores, detections())
    assert found.output("y").cosine.value > 0.9999
    assert judge(found, Gate(min_cosine=-1, max_relative_l2=2)).passed
    failures = judge(found, Gate(min_cosine=0.9, max_relative_l2=0.5)).failures
    where = "'y', channels 4 to 9 (axis 1)"
    assert [one.what for one in failures] == [f"cosine of {where}", f"relative L2 of {where}"]


def test_a_part_is_judged_on_the_images_on_which_it_is_finite() -> None:
    images = detections()
    images[3, 5, 7] = -np.inf  # among the scores
    images[6, 4, 2] = np.nan
    found = compared(lambda x: x + np.float32(0.01), images).output("y")
    boxes, scores = found.parts
    clean = compared(lambda x: x + np.float32(0.01), detections()).output("y")
    assert boxes.sqnr_db == clean.parts[0].sqnr_db
    kept = np.delete(images, [3, 6], 0)
    without = compared(lambda x: x + np.float32(0.01), kept).output("y").parts[1]
    assert scores.sqnr_db.value == pytest.approx(without.sqnr_db.value, rel=1e-12)


def test_a_part_that_is_never_finite_has_no_figures() -> None:
    images = detections()
    images[:, 5, 0] = np.inf
    found = compared(lambda x: x, images).output("y")
    assert found.parts[0].sqnr_db.value == np.inf
    assert found.parts[1].sqnr_db.value == -np.inf
    assert np.isnan(found.parts[1].noise_rms)
    assert found.worst_part == "channels 4 to 9 (axis 1)"


def test_images_whose_float_part_is_not_finite_do_not_choose() -> None:
    rng = np.random.default_rng(6)
    outputs = [{"y": rng.standard_normal((1, 10, 30)).astype(np.float32)} for _ in range(6)]
    others = [{"y": one["y"] + np.float32(0.1)} for one in outputs]
    clean = Measure.of([one for n, one in enumerate(outputs) if n != 2], {"y": (SCORES,)})
    outputs[2]["y"][0, 8] = np.inf
    others[2]["y"][0, 8] = np.inf
    measure = Measure.of(outputs, {"y": (BOXES, SCORES)})
    errors = measure.errors(others)
    assert list(np.flatnonzero(errors[:, 1] == 0)) == [2]
    assert (errors[:, 0] > 0).all()
    expected = clean.errors([one for n, one in enumerate(others) if n != 2]).sum()
    assert errors[:, 1].sum() == pytest.approx(expected, rel=1e-9)
    others[0]["y"][0, 8] = np.inf
    assert measure.errors(others).sum() == np.inf
