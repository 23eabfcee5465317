"""Thresholds from histograms, against the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators import METHODS, Histogram, TensorRange, choose
from calibrators.errors import MethodError, ObservationError
from calibrators.quantization_error import MagnitudeMoments, expected_error

RNG = np.random.default_rng(7)
TENSORS = {
    "gaussian": RNG.standard_normal(200_000),
    "relu": np.maximum(RNG.standard_normal(200_000), 0),
    "laplace": RNG.laplace(size=200_000),
    "student": RNG.standard_t(3, 200_000),
    "image": RNG.integers(0, 256, 200_000) / 255,
    "shifted": RNG.standard_normal(200_000) * 0.1 - 5,
}


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.observe(np.asarray(values, np.float32))
    return histogram


def squared_error(values: np.ndarray, amax: float) -> float:
    scale = amax / 127
    quantized = np.clip(np.round(values / scale), -127, 127) * scale
    return float(np.sum((values - quantized) ** 2))


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("share", [1.0, 0.6, 0.1])
def test_expected_error_is_that_of_quantizing(name: str, share: float) -> None:
    values = TENSORS[name].astype(np.float32).astype(np.float64)
    amax = share * float(np.abs(values).max())
    expected = expected_error(MagnitudeMoments(histogram_of(values)), np.array([amax]))
    # A bin is at most 1/1024 of its magnitude, an eighth of a step at the top: where values lie inside
    # it matters little against the noise of 200,000 values. The image has only 256 distinct values, which
    # are not spread over their bins.
    tolerance = 0.02 if name != "image" else 0.2
    assert expected.total[0] == pytest.approx(squared_error(values, amax), rel=tolerance)
    clipped = values[np.abs(values) > amax]
    assert expected.clipping[0] == pytest.approx(
        float(np.sum((np.abs(clipped) - amax) ** 2)), rel=1e-2
    )


@pytest.mark.parametrize("name", ["gaussian", "relu", "laplace", "student", "shifted"])
def test_mse_finds_the_least_error(name: str) -> None:
    values = TENSORS[name]
    chosen = choose(histogram_of(values), "mse").amax
    others = np.abs(values).max() * np.exp2(-np.linspace(0, 6, 400))
    least = min(squared_error(values, amax) for amax in others)
    # the histogram's estimate is within 2 % (above), on both sides
    assert squared_error(values, chosen) <= least * 1.04


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("percent", [99.99, 50.1, 0.5])
def test_percentile_is_the_upper_edge_of_its_bin(name: str, percent: float) -> None:
    magnitudes = np.abs(TENSORS[name]).astype(np.float32)
    exact = np.quantile(magnitudes, percent / 100, method="inverted_cdf")
    chosen = choose(histogram_of(magnitudes), "percentile", percentile=percent).amax
    if exact == 0:
        exact = np.quantile(magnitudes[magnitudes > 0], percent / 100, method="inverted_cdf")
    assert exact <= chosen <= exact * (1 + 1 / 1024)


def test_percentile_of_a_mostly_zero_tensor_is_that_of_the_rest() -> None:
    values = np.append(np.zeros(1_000_000), np.arange(1, 11))
    threshold = choose(histogram_of(values), "percentile")
    assert threshold.amax == 10
    assert "99.99 % of the values are zero" in threshold.note


def test_all_of_any_number_of_values_end_at_the_largest() -> None:
    bins = np.array([np.float32(x).view(np.uint32) >> 13 for x in (1.0, 2.0)], np.int64)
    counts = np.array([1, 10**15 + 5])  # 100 / 100 of 10**15 + 6 is more in float64
    histogram = Histogram.from_bins(
        bins, counts, num_zeros=0, num_nan=0, num_inf=0, minimum=1.0, maximum=2.0
    )
    assert choose(histogram, "percentile", percentile=100).amax == 2.0


def test_minmax_is_exact() -> None:
    threshold = choose(histogram_of([0.1, -0.7]), "minmax")
    assert threshold.amax == np.float32(0.7)
    assert threshold.clipped_share == 0


@pytest.mark.parametrize("method", ["entropy", "mse"])
@pytest.mark.parametrize("name", TENSORS)
def test_thresholds_clip_under_one_percent_and_keep_the_signal(method: str, name: str) -> None:
    histogram = histogram_of(TENSORS[name])
    threshold = choose(histogram, method)
    assert threshold.amax <= histogram.observed_amax
    assert threshold.clipped_share < 0.01
    # a Student variable with three degrees of freedom is hardest: its square has no variance
    assert threshold.sqnr_db > (15 if name == "student" else 30)


def test_entropy_is_not_drawn_to_the_zeros_of_a_relu() -> None:
    # The published pseudo-code keeps the zeros in bin 0 and then chooses the smallest candidate,
    # a sixteenth of the range.
    values = np.maximum(RNG.standard_normal(100_000) + 0.5, 0)
    threshold = choose(histogram_of(values))
    assert threshold.amax > 0.6 * values.max()


@pytest.mark.parametrize("method", METHODS)
class TestHardTensors:
    def test_a_constant_tensor_is_neither_clipped_nor_lost(self, method: str) -> None:
        threshold = choose(histogram_of(np.full(1000, -1.2)), method)
        assert threshold.amax == np.float32(1.2)
        assert (threshold.clipped_share, threshold.vanished_share) == (0, 0)

    def test_a_constant_power_of_two_is_its_own_threshold(self, method: str) -> None:
        threshold = choose(histogram_of(np.full(1000, 2.0)), method)
        assert (threshold.amax, threshold.clipped_share) == (2.0, 0)

    def test_of_two_values_the_larger_is_the_threshold(self, method: str) -> None:
        values = np.repeat([0.5, 8.0], [9000, 1000])
        assert choose(histogram_of(values), method).amax == pytest.approx(8.0, rel=1 / 127)

    def test_a_tensor_of_zeros_has_amax_zero_and_a_note(self, method: str) -> None:
        threshold = choose(histogram_of(np.zeros(10)), method)
        assert threshold == TensorRange(
            0.0, 0.0, 0.0, 0.0, method, "zero in all 10 values", num_values=10, num_zeros=10
        )

    @pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1e30, 3e38])
    def test_thresholds_follow_any_magnitude(self, method: str, size: float) -> None:
        values = np.linspace(0, 1, 1000) * size
        assert choose(histogram_of(values), method).amax == pytest.approx(size, rel=0.02, abs=2e-45)

    def test_non_finite_values_are_left_out_and_noted(self, method: str) -> None:
        plain = choose(histogram_of([1.0, -3.0]), method)
        spoilt = choose(histogram_of([1.0, np.nan, -3.0, np.inf, -np.inf]), method)
        assert spoilt.amax == plain.amax
        assert "1 NaN value was left out; 2 infinite values were left out" in spoilt.note

    def test_a_histogram_without_finite_values_is_refused(self, method: str) -> None:
        with pytest.raises(ObservationError, match="no finite value"):
            choose(histogram_of([np.nan]), method)


@pytest.mark.parametrize(("num_outliers", "left_out"), [(10, True), (11, False)])
def test_entropy_leaves_one_value_in_a_hundred_thousand_out_of_its_range(
    num_outliers: int, left_out: bool
) -> None:
    # below 1/16 of the range, which is where the smallest threshold ends
    rest = np.linspace(1e-3, 1.0, 1_000_000 - num_outliers)
    threshold = choose(histogram_of(np.append(rest, np.full(num_outliers, 30.0))))
    assert ("outliers and were left out" in threshold.note) is left_out
    assert (threshold.amax <= 1.01) is left_out


@pytest.mark.parametrize(("end", "left_out"), [(1.99, True), (2.02, False)])
def test_entropy_leaves_out_what_lies_beyond_sixteen_times_the_rest(
    end: float, left_out: bool
) -> None:
    # the range ends at 32, a sixteenth of it at 2
    values = np.append(np.linspace(1e-3, end, 200_000), 30.0)
    assert ("outliers and were left out" in choose(histogram_of(values)).note) is left_out


@pytest.mark.parametrize(("num_beyond", "clipped"), [(100, True), (101, False)])
def test_entropy_clips_one_value_in_a_hundred_at_most(num_beyond: int, clipped: bool) -> None:
    # Bins are 1/1024 wide here. By the rule, a threshold right behind the bin with nearly all values loses
    # nothing; larger candidates merge this bin with bins of other counts.
    bins = np.repeat([1100.5, 1103.5, 1108.5], [10_000 - num_beyond, num_beyond - 40, 40])
    threshold = choose(histogram_of(bins / 1024))
    assert (threshold.amax == 1101.5 / 1024) is clipped
    assert (threshold.clipped_share == 0.01) is clipped


@pytest.mark.parametrize("outlier", [1e3, 1e30])
def test_entropy_sees_past_one_outlier_in_ten_million(outlier: float) -> None:
    histogram = Histogram()
    rng = np.random.default_rng(8)
    for _ in range(10):
        histogram.observe(rng.standard_normal(1_000_000, dtype=np.float32))
    without = choose(histogram)
    histogram.observe(np.array([outlier]))
    threshold = choose(histogram)
    assert threshold.amax == pytest.approx(without.amax, rel=0.1)
    assert "outliers" in threshold.note
    assert "outliers" not in without.note


def test_unknown_methods_and_options_are_named() -> None:
    histogram = histogram_of([1.0])
    with pytest.raises(MethodError, match="no method 'kl'; choose one of entropy, "):
        choose(histogram, "kl")
    with pytest.raises(MethodError, match="'mse' has no option 'percentile': it has no"):
        choose(histogram, "mse", percentile=99)
    with pytest.raises(MethodError, match="has no option 'q': its options are perc"):
        choose(histogram, "percentile", q=99)
    for value in (0, 100.5, float("nan")):
        with pytest.raises(MethodError, match="above 0 and at most 100"):
            choose(histogram, "percentile", percentile=value)
