"""The figures that the docstrings of the threshold rules promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibrators import Histogram, choose
from calibrators.entropy import search
from calibrators.quantization_error import MagnitudeMoments, expected_error
from calibrators.rules import covering_exponent, power_error


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.observe(np.asarray(values, np.float32))
    return histogram


def normal(num: int = 20_000, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num)


@pytest.mark.parametrize(("amax", "exponent"), [(1.0, 0), (1.5, 1), (2.0, 1), (0.5, -1), (0.75, 0)])
def test_the_smallest_power_of_two_that_covers(amax: float, exponent: int) -> None:
    assert covering_exponent(amax) == exponent


@pytest.mark.parametrize("power", [-40, -80, -104])
def test_entropy_does_not_depend_on_the_unit(power: int) -> None:
    values = np.random.default_rng(2).laplace(size=20_000).astype(np.float32)
    amax = choose(histogram_of(values), "entropy").amax
    assert amax < np.abs(values).max() < 2**4  # so the last power gives the smallest range, 2**-100
    assert choose(histogram_of(np.ldexp(values, power)), "entropy").amax == math.ldexp(amax, power)


def test_entropy_clips_nothing_where_the_bins_would_be_subnormal() -> None:
    values = np.ldexp(normal().astype(np.float32), -104)
    assert 2**-102 < np.abs(values).max() < 2**-101
    threshold = choose(histogram_of(values), "entropy")
    assert threshold.amax == float(np.abs(values).max())
    assert "nothing is clipped" in threshold.note


def test_entropy_gives_bin_0_the_count_of_bin_1() -> None:
    histogram = histogram_of(np.maximum(normal(2000), 0.0))  # a Relu: half are zeros
    exponent = covering_exponent(histogram.observed_amax)
    counts = histogram.fold(exponent)
    found = {}
    for name, first in (("bin 1", int(counts[1])), ("as counted", int(counts[0]))):
        counts[0] = first
        found[name] = (search(counts) + 0.5) * 2.0**exponent / 2048
    assert choose(histogram, "entropy").amax == np.float32(found["bin 1"])
    assert found["bin 1"] != found["as counted"]


def test_mse_looks_sixteen_octaves_down() -> None:
    histogram = histogram_of(normal(200_000))
    for _ in range(9):  # a hundred million values about 1
        histogram = histogram.merge(histogram)
    histogram = histogram.merge(histogram_of(np.array([2.0**12])))
    moments = MagnitudeMoments(histogram)
    amaxes = 2.0**12 * np.exp2(-np.linspace(0, 16, 4000))
    least = expected_error(moments, amaxes).total.min()
    chosen = choose(histogram, "mse").amax
    # the grid here is finer than that of the rule, whose answer may be off by 0.1 % in amax
    assert expected_error(moments, np.array([chosen])).total[0] <= least * 1.001
    assert chosen < 2.0**12 / 2**8


@pytest.mark.parametrize("seed", range(4))
def test_mse_is_within_a_thousandth_of_the_best_near_it(seed: int) -> None:
    histogram = histogram_of(np.random.default_rng(seed).laplace(size=50_000))
    chosen = choose(histogram, "mse").amax
    near = chosen * np.linspace(0.92, 1.09, 8001)
    best = near[np.argmin(expected_error(MagnitudeMoments(histogram), near).total)]
    assert chosen == pytest.approx(best, rel=1e-3)


def test_auto_weighs_errors_by_the_power_that_it_says() -> None:
    histogram = histogram_of(np.random.default_rng(0).standard_t(2, 20_000))
    first, second = (choose(histogram, "auto", power=p).amax for p in (1.75, 2.0))
    assert choose(histogram, "auto").amax == first != second
    assert power_error(histogram, first, 1.75) < power_error(histogram, second, 1.75)
    assert power_error(histogram, first, 2.0) > power_error(histogram, second, 2.0)


def test_what_rounds_to_zero_is_what_lies_below_half_a_step() -> None:
    values = np.array([127.0, 0.4, -0.498, 0.502, 0.9])  # one step is 1
    assert choose(histogram_of(values), "minmax").vanished_share == pytest.approx(2 / 5)


def test_the_default_percentile_is_as_documented() -> None:
    values = np.arange(1, 100_001) / 100_000
    amax = choose(histogram_of(values), "percentile").amax
    assert 0.9999 <= amax <= 0.9999 * 1.001


def test_the_percentile_of_a_tensor_of_zeros_is_that_of_the_rest() -> None:
    values = np.concatenate([np.zeros(99_950), np.linspace(1, 2, 50)])
    threshold = choose(histogram_of(values), "percentile", percentile=99.9)
    assert threshold.amax == pytest.approx(2.0, rel=0.05)
    assert "percentile of the others" in threshold.note
    threshold = choose(histogram_of(values), "percentile", percentile=99.96)
    assert threshold.amax == pytest.approx(1.2, rel=0.02)  # zeros count as values
