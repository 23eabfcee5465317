"""Two sets of thresholds side by side."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators import Agreement, Histogram, choose, crosscheck, read_onnxruntime_table
from calibrators.errors import CacheError


@pytest.fixture(scope="module")
def histogram() -> Histogram:
    values = np.random.default_rng(5).laplace(size=100_000)
    histogram = Histogram()
    histogram.observe(values.clip(-7.5, 7.5))
    return histogram


BIN = 8 / 2048  # the power of two that covers 7.5


@pytest.mark.parametrize(
    ("factor", "shift", "agreement"),
    [
        (1, 0, Agreement.SAME),
        (1, BIN, Agreement.SAME),
        (1, -BIN, Agreement.SAME),
        (1, 1.01 * BIN, Agreement.NEAR),
        (1 / 1.09, 0, Agreement.NEAR),
        (1.12, 0, Agreement.APART),
        (1 / 1.3, 0, Agreement.APART),
        (1.4, 0, Agreement.FAR),
        (0.5, 0, Agreement.FAR),
    ],
)
def test_agreement_goes_by_the_ratio_of_thresholds_and_by_bins(
    histogram: Histogram, factor: float, shift: float, agreement: Agreement
) -> None:
    first, second = 4.0, 4.0 * factor + shift
    found = crosscheck({"t": first}, {"t": second}, {"t": histogram}).comparisons[0]
    assert found.agreement == agreement
    assert found.flagged == (agreement != Agreement.SAME)
    assert found.ratio == second / first
    assert found.bins == pytest.approx((second - first) / BIN)


def test_costs_and_divergences_of_both() -> None:
    histogram = Histogram()
    histogram.observe(np.random.default_rng(6).laplace(size=100_000))
    chosen = choose(histogram)
    assert chosen.amax < histogram.observed_amax
    found = crosscheck({"t": chosen.amax}, {"t": 1.0}, {"t": histogram}).comparisons[0]
    assert found.costs is not None
    assert found.divergences is not None
    assert found.costs[0].sqnr_db == chosen.sqnr_db
    assert found.costs[1].clipped_share == pytest.approx(np.exp(-1.0), abs=0.01)
    assert found.divergences[0] == found.divergences[2] < found.divergences[1]


def test_a_few_outliers_do_not_make_all_thresholds_alike() -> None:
    values = np.random.default_rng(7).laplace(size=100_000)
    values[0] = 1e6  # with bins of 1e6 / 2048, all thresholds of the others are in the first one
    histogram = Histogram()
    histogram.observe(values)
    chosen = choose(histogram)
    found = crosscheck({"t": chosen.amax}, {"t": chosen.amax / 4}, {"t": histogram}).comparisons[0]
    assert found.agreement == Agreement.FAR
    assert 128 * 3 / 4 < abs(found.bins) <= 256 * 3 / 4  # the larger one keeps 128 to 256 bins
    assert found.divergences is not None
    assert found.divergences[0] < found.divergences[1]


def test_the_largest_differences_come_first_and_unmatched_tensors_are_listed(
    histogram: Histogram,
) -> None:
    first = {"a": 1.0, "b": 1.0, "zero": 0.0, "x": 1.0, "inf": 2.0}
    second = {"zero": 1.0, "y": 2.0, "b": 0.4, "a": 1.05, "inf": float("inf")}
    found = crosscheck(first, second, {"a": histogram})
    assert [entry.tensor for entry in found.comparisons[:2]] == ["b", "a"]
    assert {entry.tensor for entry in found.comparisons[2:]} == {"zero", "inf"}
    assert all(np.isnan(entry.ratio) and not entry.flagged for entry in found.comparisons[2:])
    assert (found.only_first, found.only_second) == (("x",), ("y",))
    assert [entry.tensor for entry in found.flagged] == ["b", "a"]
    assert found.count(Agreement.UNUSABLE) == 2
    assert found.comparisons[0].costs is None


def test_tables_of_onnxruntime_are_read_and_bad_lines_named() -> None:
    table = b"input 2.64\n/conv 1/out -0.5\n\n"
    assert read_onnxruntime_table(table) == {"input": 2.64, "/conv 1/out": 0.5}
    for bad in (b"input 2.64\nx", b"input 2.64\nx y\n", b" 3\nname 3"):
        with pytest.raises(CacheError, match=r"line [12] is not 'name value'"):
            read_onnxruntime_table(bad)
