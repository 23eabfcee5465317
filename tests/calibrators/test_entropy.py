"""The fast entropy search against its specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calibrators import entropy, entropy_reference

LEVELS, BINS = (
    16,
    160,
)  # small enough for the slow specification; the formulas are the same for all sizes


@st.composite
def histograms(draw: st.DrawFn) -> np.ndarray:
    """Typical counts: smooth, sparse, comb-like, with long runs of equal or empty bins."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(LEVELS, BINS))
    bins = np.arange(size)
    shape = draw(st.sampled_from(["decay", "uniform", "sparse", "comb", "runs", "big", "constant"]))
    counts = {
        "decay": rng.poisson(1000 * np.exp(-bins / (size * rng.uniform(0.02, 1)))),
        "uniform": rng.integers(0, 5, size),
        "sparse": rng.integers(1, 100, size) * (rng.random(size) < 0.05),
        "comb": 7 * (bins % rng.integers(2, 9) == 0),
        "runs": np.repeat(rng.integers(0, 3, size), 10)[:size],
        "big": rng.integers(0, 2**40, size),
        "constant": 9 * (bins == rng.integers(0, size)),
    }[shape]
    return counts.astype(np.int64)


def assert_equals_the_specification(counts: np.ndarray, outliers: int, share: float) -> None:
    smallest = LEVELS + int(share * (len(counts) - LEVELS))
    fast = entropy.search(counts, LEVELS, outliers, smallest)
    assert fast == entropy_reference.search(counts, LEVELS, outliers, smallest)


OUTLIERS = st.sampled_from([0, 0, 1, 1000])
SMALLEST = st.sampled_from([0, 0, 0.5, 1])


@given(histograms(), OUTLIERS, SMALLEST)
@settings(max_examples=250)
@example(np.zeros(40, np.int64), 0, 0)
@example(np.zeros(40, np.int64), 5, 0)
def test_equals_the_specification(counts: np.ndarray, outliers: int, share: float) -> None:
    assert_equals_the_specification(counts, outliers, share)


@given(histograms(), st.sampled_from([0, 3]))
@settings(max_examples=50)
def test_divergences_equal_the_definition(counts: np.ndarray, outliers: int) -> None:
    fast = entropy.divergences(counts, LEVELS, outliers)
    kept = range(LEVELS, len(counts) + 1)
    plain = [entropy_reference.divergence(counts, i, LEVELS, outliers) for i in kept]
    assert np.array_equal(np.isinf(fast), np.isinf(plain))
    finite = np.isfinite(plain)
    # sums of a few hundred terms of size ln(2**47) < 33, each off by at most 2**-53 of itself
    np.testing.assert_allclose(fast[finite], np.array(plain)[finite], rtol=0, atol=1e-11)


@pytest.mark.nightly
@given(histograms(), OUTLIERS, SMALLEST)
@settings(max_examples=5000)
def test_equals_the_specification_thousands_of_times(
    counts: np.ndarray, outliers: int, share: float
) -> None:
    assert_equals_the_specification(counts, outliers, share)


def full_size(name: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    values = {
        "gaussian": rng.standard_normal(50_000),
        "student": rng.standard_t(3, 50_000),
        "softmax": rng.dirichlet(np.ones(100), 300).ravel(),
        "two values": np.repeat([1.0, 8.0], [9000, 1000]),
        "constant": np.ones(1000),
    }[name]
    magnitudes = np.abs(values)
    return np.histogram(magnitudes, 2048, (0, magnitudes.max()))[0]


@pytest.mark.parametrize("name", ["gaussian", "softmax", "two values", "constant"])
def test_equals_the_specification_at_full_size(name: str) -> None:
    counts = full_size(name)
    counts[0] = counts[1]
    assert entropy.search(counts) == entropy_reference.search(counts)


def test_divergences_of_small_histograms_equal_those_by_hand() -> None:
    # Two levels. Keeping all four bins merges 3 with 1 and 0 with 2; keeping two of them is
    # lossless for what is kept, but 2 values are clipped onto a bin of 1; three leave bin 2 empty.
    counts = np.array([3, 1, 0, 2])
    clipped = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    merged = 0.5 * np.log(0.5 / (1 / 3)) + 1 / 6 * np.log(1 / 6 / (1 / 3))
    expected = [clipped, np.inf, merged]
    assert entropy.divergences(counts, levels=2) == pytest.approx(expected)
    assert entropy.search(counts, levels=2) == 4


def test_of_equal_candidates_the_largest_wins() -> None:
    assert entropy.search(np.bincount([30], minlength=160), LEVELS) == 160
