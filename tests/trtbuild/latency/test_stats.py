"""Statistics of latencies against NumPy, SciPy and simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from trtbuild.errors import OptionError
from trtbuild.latency.measure import Samples
from trtbuild.latency.stats import median_interval, quantile, ratio, summarize


def samples(values: np.ndarray, name: str = "a", runs_per_turn: int = 1) -> Samples:
    return Samples(name, 4, "test", runs_per_turn, tuple(float(v) for v in values))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9, 0.95, 0.99, 1.0])
def test_quantile_is_numpys_inverted_cdf(share: float) -> None:
    values = list(np.random.default_rng(0).gamma(2, 1, 137))
    assert quantile(values, share) == np.quantile(values, share, method="inverted_cdf")


def test_a_share_that_rounding_makes_a_hair_larger_takes_no_further_value() -> None:
    assert 0.07 * 100 > 7
    assert quantile(list(range(1, 101)), 0.07) == 7


def test_summary_of_known_values() -> None:
    found = summarize(samples(np.random.default_rng(0).permutation(np.arange(1.0, 101.0))))
    assert (found.median_ms, found.p90_ms, found.p95_ms, found.p99_ms) == (50.5, 90, 95, 99)
    assert (found.min_ms, found.max_ms) == (1, 100)
    assert found.variation_percent == pytest.approx(100 * math.sqrt((100**2 - 1) / 12) / 50.5)
    assert found.mean_ms.value == pytest.approx(50.5)
    assert found.throughput_per_s == pytest.approx(4 * 1000 / 50.5)
    assert found.num_samples == 100


def test_the_mean_interval_counts_turns_and_not_runs() -> None:
    turns = np.random.default_rng(1).normal(10, 1, 20)
    alike = summarize(samples(np.repeat(turns, 50), runs_per_turn=50)).mean_ms
    low, high = scipy_stats.t.interval(0.95, 19, turns.mean(), scipy_stats.sem(turns))
    assert (alike.low, alike.high) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize(("count", "confidence"), [(6, 0.95), (9, 0.99), (25, 0.95), (200, 0.995)])
def test_median_interval_is_the_tightest_of_enough_confidence(
    count: int, confidence: float
) -> None:
    found = median_interval(list(range(1, count + 1)), confidence)
    rank = int(found.low)
    assert found.high == count + 1 - rank
    tail = (1 - confidence) / 2
    assert scipy_stats.binom.cdf(rank - 1, count, 0.5) <= tail
    assert scipy_stats.binom.cdf(rank, count, 0.5) > tail


def test_too_few_values_give_no_interval() -> None:
    found = median_interval([1, 2, 3, 4, 5], 0.95)
    assert (found.value, found.low, found.high) == (3, -math.inf, math.inf)


def test_a_turn_counts_as_its_median_run_and_so_does_a_last_one_of_fewer_runs() -> None:
    a, b = np.random.default_rng(5).gamma(9, 1, (2, 32))
    medians = [[np.median(one[start : start + 5]) for start in range(0, 32, 5)] for one in (a, b)]
    expected = np.exp(np.median(np.log(np.divide(medians[1], medians[0]))))
    found = ratio(samples(a, runs_per_turn=5), samples(b, "b", runs_per_turn=5))
    assert found.value == pytest.approx(expected, rel=1e-12)


def test_ratio_covers_a_planted_slow_down_under_common_drift() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        drift = np.exp(np.cumsum(rng.normal(0, 0.05, 60)))  # the machine drifts by tens of percent
        a, b = (drift * rng.lognormal(0, 0.03, 60) for _ in range(2))
        covered += ratio(samples(a), samples(1.04 * b, "b")).holds(1.04)
    # an exact 95 % interval covers at least 95 %; three standard errors of 300 draws are 3.8 points
    assert covered / 300 >= 0.95 - 0.038


def test_samples_of_two_measurements_have_no_ratio() -> None:
    with pytest.raises(OptionError, match="not measured together"):
        ratio(samples(np.ones(5)), samples(np.ones(6), "b"))
    with pytest.raises(OptionError, match="not measured together"):
        ratio(samples(np.ones(5)), dataclasses.replace(samples(np.ones(5), "b"), clock="other"))
