"""Streamed metrics against the formulas over everything at once, in float64."""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from trtbuild.verification.metrics import OutputMetrics, class_scores


def measured(x: np.ndarray, y: np.ndarray, sizes: list[int], **options: object):
    metrics = OutputMetrics("out", **options)
    start = 0
    for size in sizes:
        names = [f"image {i}" for i in range(start, start + size)]
        metrics.add(x[start : start + size], y[start : start + size], names)
        start += size
    return metrics.result()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.sets(st.integers(1, 11)), noise=st.floats(1e-4, 2))
def test_metrics_equal_the_formulas_however_batches_are_cut(
    seed: int, cuts: set[int], noise: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 7)).astype(np.float32)
    y = (x + noise * rng.normal(size=x.shape)).astype(np.float32)
    edges = [0, *sorted(cuts), 12]
    found = measured(x, y, [b - a for a, b in itertools.pairwise(edges)], top_k=3)

    a, b = x.astype(np.float64), y.astype(np.float64)
    # float64 sums of 84 terms: relative rounding is below 84 * 2^-53 = 1e-14
    assert found.sqnr_db.value == pytest.approx(
        10 * math.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=1e-9
    )
    assert found.relative_l2.value == pytest.approx(
        np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-9
    )
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert found.cosine.value == pytest.approx(cosines.mean(), abs=1e-12)
    assert found.max_error == np.abs(a - b).max()
    assert found.top1_agreement_percent.value == pytest.approx(
        100 * (x.argmax(1) == y.argmax(1)).mean()
    )
    best = [len(set(np.argsort(-p)[:3]) & set(np.argsort(-q)[:3])) / 3 for p, q in zip(a, b)]
    assert found.topk_agreement_percent.value == pytest.approx(100 * np.mean(best))
    assert found.num_images == 12
    assert sum(found.sqnr_histogram) == 12


@settings(max_examples=60)
@given(
    data=st.data(), k=st.integers(1, 4), dtype=st.sampled_from(["float16", "float32", "float64"])
)
def test_top_k_agreement_counts_what_intersect1d_finds(data, k: int, dtype: str) -> None:
    # few values, so that many scores are equal
    values = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf, -math.inf, math.nan])
    rows = st.lists(st.lists(values, min_size=6, max_size=6), min_size=3, max_size=3)
    x, y = (np.array(data.draw(rows), dtype) for _ in range(2))

    def best(scores: np.ndarray) -> list[int]:
        """The k best classes: among equal scores the lower class, and NaN last."""
        return sorted(range(6), key=lambda one: (np.isnan(scores[one]), -scores[one], one))[:k]

    with np.errstate(invalid="ignore"):
        found = measured(x, y, [2, 1], top_k=k).topk_agreement_percent
    shares = [np.intersect1d(best(one), best(other)).size / k for one, other in zip(x, y)]
    # a mean of three float64 percentages: its rounding is below 3 * 100 * 2^-53
    assert found.value == pytest.approx(100 * np.mean(shares), abs=1e-12)


def test_sqnr_of_a_known_error() -> None:
    # error of a tenth of the signal everywhere: 20 dB, relative L2 0.1, cosine 1
    x = np.random.default_rng(0).normal(size=(4, 3, 5, 5))
    found = measured(x, 1.1 * x, [4])
    assert found.sqnr_db.value == pytest.approx(20.0)
    assert found.relative_l2.value == pytest.approx(0.1)
    assert found.cosine.value == pytest.approx(1.0)
    assert found.kind == "values"
    assert found.top1_agreement_percent is None


def test_identical_outputs_have_infinite_sqnr_and_no_error() -> None:
    x = np.ones((2, 3), np.float32)
    found = measured(x, x, [2])
    assert (found.sqnr_db.value, found.relative_l2.value, found.max_error) == (math.inf, 0.0, 0.0)


def test_worst_images_are_the_worst_and_in_order() -> None:
    x = np.ones((50, 4), np.float32)
    errors = np.linspace(0.01, 0.5, 50, dtype=np.float32)
    order = np.random.default_rng(3).permutation(50)
    found = measured(x, x + errors[order, None], [10] * 5, num_worst=3)
    expected = [f"image {i}" for i in np.argsort(-errors[order])[:3]]
    assert [image.name for image in found.worst] == expected


def test_an_image_with_nan_is_counted_and_leads_the_worst() -> None:
    x = np.ones((3, 4), np.float32)
    y = x.copy() + np.float32(0.1)
    y[1, 2] = np.nan
    found = measured(x, y, [3])
    assert found.num_non_finite == 1
    assert found.worst[0].name == "image 1"
    assert found.sqnr_db.value == pytest.approx(20.0, abs=1e-4)  # of the two others; 0.1 in float32


def test_nothing_finite_is_the_worst_score_and_not_a_missing_one() -> None:
    x = np.ones((2, 4), np.float32)
    found = measured(x, np.full_like(x, np.inf), [2])
    assert found.sqnr_db.value == -math.inf


def test_integer_outputs_are_compared_by_equality() -> None:
    x = np.array([[1, 2], [3, 4]], np.int64)
    found = measured(x, np.array([[1, 2], [3, 7]], np.int64), [2])
    assert (found.kind, found.equal_percent, found.max_error) == ("integers", 75.0, 3.0)
    assert found.sqnr_db is None
    assert found.judged == "'out'"
    assert found.judged_cosine == found.judged_relative_l2 == ("'out'", None)


def test_truth_values_have_no_error_but_the_share_that_is_equal() -> None:
    x = np.array([[True, False], [True, True]])
    found = measured(x, ~x, [2])
    assert (found.kind, found.equal_percent, found.max_error) == ("integers", 0.0, 0.0)


@pytest.mark.parametrize(("x", "y", "cosine"), [(0.0, 0.0, 1.0), (0.0, 2.0, 0.0), (2.0, 0.0, 0.0)])
def test_the_cosine_of_zeros_says_whether_both_are_zero(x: float, y: float, cosine: float) -> None:
    assert measured(np.full((3, 4), x), np.full((3, 4), y), [3]).cosine.value == cosine


def test_a_data_dependent_shape_that_differs_is_counted() -> None:
    metrics = OutputMetrics("boxes")
    metrics.add(np.zeros((3, 4)), np.zeros((5, 4)), ["one image"])
    assert metrics.result().num_incomparable == 1


def test_an_output_without_an_image_axis_is_one_item_a_batch() -> None:
    metrics = OutputMetrics("total")
    metrics.add(np.array([3.0, 4.0, 0.0]), np.array([3.0, 4.0, 0.5]), ["a", "b"])
    found = metrics.result()
    assert found.num_images == 1
    assert found.worst[0].name == "a ... b"


@pytest.mark.parametrize(
    ("shape", "dtype", "is_scores"),
    [
        ((4, 10), np.float32, True),
        ((4, 10, 1, 1), np.float16, True),
        ((4, 10), ml_dtypes.bfloat16, True),
        ((4, 1), np.float32, False),
        ((4,), np.float32, False),
        ((4, 10, 2), np.float32, False),
        ((3, 10), np.float32, False),
        ((4, 10), np.int64, False),
    ],
)
def test_what_looks_like_class_scores(shape: tuple[int, ...], dtype: type, is_scores: bool) -> None:
    assert (class_scores(np.zeros(shape, dtype), 4) is not None) == is_scores


@pytest.mark.parametrize("softmaxed", [False, True])
def test_divergence_of_the_class_probabilities_against_scipy(softmaxed: bool) -> None:
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    p, q = (special.softmax(array, axis=1) for array in (x, y))
    found = measured(p, q, [4, 2]) if softmaxed else measured(x, y, [4, 2])
    expected = special.rel_entr(p, q).sum(1).mean()
    assert found.divergence_nats.value == pytest.approx(expected, rel=1e-9)
    assert found.topk_agreement_percent is None  # no more than five classes


def test_a_class_that_the_engine_rules_out_costs_as_much_as_a_probability_of_1e_12() -> None:
    found = measured(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]), [1])
    expected = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-12)
    assert found.divergence_nats.value == pytest.approx(expected, rel=1e-12)


def test_what_is_said_to_be_no_scores_is_compared_as_values() -> None:
    x = np.random.default_rng(0).normal(size=(4, 9))
    found = measured(x, x + 0.1, [4], as_scores=False)
    assert (found.kind, found.top1_agreement_percent, found.divergence_nats) == (
        "values",
        None,
        None,
    )


@pytest.mark.parametrize(("sign", "low", "high"), [(1, 0.9, 1.0), (-1, -1.0, -0.9)])
def test_the_interval_of_a_cosine_ends_where_cosines_end(
    sign: int, low: float, high: float
) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(4, 6))
    found = measured(x, sign * (x + rng.normal(0, [[0.01], [0.01], [0.01], [0.1]], x.shape)), [4])
    assert low <= found.cosine.low < found.cosine.value < found.cosine.high <= high
    assert (found.cosine.high if sign > 0 else found.cosine.low) == sign


def test_divergence_leaves_out_what_is_not_finite_and_is_the_same_at_any_height_of_scores() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    expected = (
        special.rel_entr(special.softmax(x, axis=1), special.softmax(y, axis=1)).sum(1).mean()
    )
    x[1] += 2000.0
    spoilt = np.array([[1.0, math.nan, 0.0, 0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        found = measured(np.vstack([x, x[:1]]), np.vstack([y, spoilt]), [3])
    # at 2000, a float64 is rounded by 1e-13
    assert found.divergence_nats.value == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("sqnr", "place"), [(-40, 0), (-15, 5), (30.5, 50), (99.5, 119), (180, 120)]
)
def test_images_are_counted_in_bins_of_one_decibel_from_minus_20_on(
    sqnr: float, place: int
) -> None:
    x = np.ones((1, 1))
    found = measured(x, x + 10 ** (-sqnr / 20), [1]).sqnr_histogram
    assert found.index(1) == place
    assert len(found) == 121


def test_five_classes_and_ten_images_unless_asked_for_more() -> None:
    x = np.random.default_rng(0).normal(size=(12, 8))
    found = measured(x, x * 1.1, [12])
    assert found.top_k == 5
    assert len(found.worst) == 10


def test_among_equal_scores_the_lower_classes_come_first() -> None:
    x, y = np.zeros((1, 1000)), np.zeros((1, 1000))
    y[0, 5:] = -np.arange(
        995
    )  # classes 0 to 4 lead by their order in one array, by value in the other
    assert measured(x, y, [1]).topk_agreement_percent.value == 100.0


@pytest.mark.parametrize("classes", [20, 100, 1000])
def test_among_many_equal_scores_the_lower_classes_come_first(classes: int) -> None:
    # an unstable sort, whose choice depends on the length, would mix them
    tied = np.zeros((1, classes), np.float32)
    tied[0, ::7] = 1.0
    ahead = tied.copy()
    ahead[0, [0, 7, 14, 1, 2]] += np.float32([0.05, 0.04, 0.03, 1.5, 1.4])
    wanted = [1, 2, 0, 7, 14]
    first = sorted(range(classes), key=lambda c: (-tied[0, c], c))[:5]
    share = 100.0 * len(set(wanted) & set(first)) / 5
    found = measured(tied, ahead, [1]).topk_agreement_percent.value
    assert found == pytest.approx(share)


def test_scores_that_nearly_add_up_to_one_are_no_probabilities() -> None:
    x, y = np.array([[0.55, 0.5]]), np.array([[0.65, 0.4]])
    p, q = special.softmax(x, axis=1), special.softmax(y, axis=1)
    found = measured(x, y, [1]).divergence_nats.value
    assert found == pytest.approx(float(special.rel_entr(p, q).sum()), rel=1e-9)
