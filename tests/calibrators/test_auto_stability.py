"""The methods side by side, and thresholds from halves of the data."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators import Histogram, choose, stability
from calibrators.errors import MergeError, MethodError
from calibrators.rules import power_error


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.observe(np.asarray(values, np.float32))
    return histogram


@pytest.mark.parametrize("power", [1.0, 1.75, 3.0])
def test_auto_has_the_least_error_of_its_candidates(power: float) -> None:
    for values in (
        np.random.default_rng(1).standard_normal(50_000),
        np.random.default_rng(2).standard_t(3, 50_000),
        np.maximum(np.random.default_rng(3).laplace(size=50_000), 0),
    ):
        histogram = histogram_of(values)
        errors = []
        for method, options in [
            ("entropy", {}),
            ("mse", {}),
            ("minmax", {}),
            *[("percentile", {"percentile": p}) for p in (99.9, 99.99, 99.999)],
        ]:
            scale = choose(histogram, method, **options).amax / 127  # type: ignore[arg-type]
            quantized = np.clip(np.round(values / scale), -127, 127) * scale
            errors.append(np.sum(np.abs(values - quantized) ** power))
        amax = choose(histogram, "auto", power=power).amax
        quantized = np.clip(np.round(values / (amax / 127)), -127, 127) * (amax / 127)
        # the histogram knows the error of a threshold to about a percent
        assert np.sum(np.abs(values - quantized) ** power) <= 1.02 * min(errors)


def test_power_error_is_the_error_of_quantizing() -> None:
    values = np.random.default_rng(4).laplace(size=100_000)
    quantized = np.clip(np.round(values / (5 / 127)), -127, 127) * (5 / 127)
    for power in (1.0, 1.75, 2.0):
        exact = np.sum(np.abs(values - quantized) ** power)
        assert power_error(histogram_of(values), 5.0, power) == pytest.approx(exact, rel=0.01)


def test_auto_says_whose_threshold_it_took() -> None:
    assert choose(histogram_of(np.ones(5)), "auto").note.startswith("the threshold of ")
    with pytest.raises(MethodError, match="must be above 0"):
        choose(histogram_of(np.ones(5)), "auto", power=0)


def stability_of(first, second, method="entropy", **options):
    """The thresholds of both halves compared with those of all values."""
    together = {name: first[name].merge(second[name]) for name in first}
    amaxes = {name: choose(h, method, **options).amax for name, h in together.items()}
    return stability(amaxes, first, second, method, **options)


def test_more_images_make_thresholds_of_halves_agree() -> None:
    rng = np.random.default_rng(5)
    spreads = []
    for num in (1000, 1_000_000):
        halves = [{t: histogram_of(rng.laplace(size=num)) for t in "abcdefgh"} for _ in range(2)]
        found = stability_of(halves[0], halves[1], "percentile", percentile=99.9)
        spreads.append(np.mean([entry.spread for entry in found.values()]))
    # The 99.9th percentile of n Laplace values has a standard deviation of sqrt(1000 / n) over a
    # value of 6.9, so two differ by 16 % and 0.5 % on average.
    assert spreads[1] < 0.02 < spreads[0]


def test_stability_compares_with_the_whole() -> None:
    rng = np.random.default_rng(6)
    values = rng.laplace(size=20_000)
    first, second = {"t": histogram_of(values[:10_000])}, {"t": histogram_of(values[10_000:])}
    found = stability_of(first, second, "mse")["t"]
    assert found.amax == choose(histogram_of(values), "mse").amax
    assert found.halves == tuple(choose(half["t"], "mse").amax for half in (first, second))
    zeros, ones = {"z": histogram_of(np.zeros(3))}, {"z": histogram_of(np.ones(3))}
    assert stability_of(zeros, zeros)["z"].spread == 0
    assert stability_of(zeros, ones)["z"].spread == 1
    with pytest.raises(MergeError, match="'u' is not in all of them"):
        stability({"t": found.amax}, first, {**second, "u": second["t"]})
