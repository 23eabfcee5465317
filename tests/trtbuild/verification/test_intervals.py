"""Intervals against SciPy, published examples, and their coverage in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trtbuild.verification.intervals import (
    Moments,
    PairMoments,
    difference_of_proportions,
    proportion,
    student_quantile,
)


@pytest.mark.parametrize(
    ("degrees", "tolerance"), [(1, 1e-9), (2, 1e-9), (3, 5e-3), (5, 5e-4), (10, 1e-5), (200, 1e-9)]
)
def test_student_quantile_against_scipy(degrees: int, tolerance: float) -> None:
    # the tolerances are the accuracy that the docstring promises
    expected = stats.t.ppf(0.975, degrees)
    assert student_quantile(0.975, degrees) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9975])
def test_the_error_of_a_quantile_falls_with_the_fifth_power_of_the_degrees(probability) -> None:
    few, many = (
        abs(student_quantile(probability, degrees) / stats.t.ppf(probability, degrees) - 1)
        for degrees in (20, 40)
    )
    assert many < few / 24  # 1/32 of it; with a wrong fourth term, 1/16


def test_wilson_interval_of_newcombes_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662
    found = proportion(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_wilson_interval_at_the_ends_stays_inside_and_is_not_empty() -> None:
    none, every = proportion(0, 20), proportion(20, 20)
    assert none.low == 0.0
    assert 0.1 < none.high < 0.2
    assert every.high == 1.0
    assert 0.8 < every.low < 0.9


def test_mean_interval_against_scipy() -> None:
    values = np.random.default_rng(0).normal(3, 2, 40)
    moments = Moments()
    for value in values:
        moments.add(float(value))
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    found = moments.estimate()
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    # the quantile is good to 1e-5 there
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)


def test_one_value_says_that_nothing_is_known_about_the_mean() -> None:
    moments = Moments()
    moments.add(1.0)
    assert (moments.estimate().low, moments.estimate().high) == (-math.inf, math.inf)


def test_log_ratio_against_the_formula() -> None:
    rng = np.random.default_rng(3)
    top = rng.gamma(2.0, 0.02, 12)
    bottom = top * rng.uniform(0.5, 1.5, 12)
    pairs = PairMoments()
    for one, other in zip(top, bottom):
        pairs.add(float(one), float(other))
    cov, a, b = np.cov(top, bottom), top.mean(), bottom.mean()
    variance = cov[0, 0] / a**2 + cov[1, 1] / b**2 - 2 * cov[0, 1] / (a * b)
    half = stats.t.ppf(0.975, 11) * math.sqrt(variance / 12)
    found = pairs.log_ratio()
    assert found.value == pytest.approx(math.log(a / b), rel=1e-12)
    # the quantile is good to 1e-5 there
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
    assert found.value - found.low == pytest.approx(half, rel=1e-5)


@pytest.mark.parametrize(
    ("pairs", "value", "low", "high"),
    [
        ([(0.5, 0.5)], 0.0, -math.inf, math.inf),
        ([(0.0, 0.5), (0.0, 0.25)], -math.inf, -math.inf, -math.inf),
        ([(0.5, 0.0), (0.0, 0.0)], math.inf, math.inf, math.inf),
        ([(0.0, 0.0)], math.inf, math.inf, math.inf),
        ([(0.5, 0.25), (0.25, 0.125)], math.log(2), math.log(2), math.log(2)),
    ],
)
def test_log_ratio_of_one_pair_of_zeros_and_of_a_constant_ratio(pairs, value, low, high) -> None:
    moments = PairMoments()
    for pair in pairs:
        moments.add(*pair)
    found = moments.log_ratio()
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-15)


def test_difference_of_proportions_covers_the_truth_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(1)
    covered, runs = 0, 4000
    for _ in range(runs):
        only_first, only_second, _ = rng.multinomial(200, [0.04, 0.01, 0.95])
        covered += difference_of_proportions(only_first, only_second, 200).holds(0.03)
    # 4000 draws: three standard errors of a 95 % share are 1.03 points
    assert 0.94 <= covered / runs <= 0.99


def test_ratio_of_sums_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    covered, runs = 0, 500
    for _ in range(runs):
        pairs = PairMoments()
        common = rng.gamma(4.0, 1.0, 100)
        for top, bottom in zip(common * rng.gamma(9, 1, 100), common * rng.gamma(9, 0.1, 100)):
            pairs.add(float(top), float(bottom))
        covered += pairs.log_ratio().holds(math.log(10.0))
    # 500 draws: three standard errors are 2.9 points
    assert 0.92 <= covered / runs <= 0.98
