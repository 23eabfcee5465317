"""Limits on speed: met, missed or undecided, by the interval and not by the figure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trtbuild.errors import OptionError
from trtbuild.latency.limits import latency_finding, speedup_finding
from trtbuild.latency.measure import MONOTONIC, Samples
from trtbuild.latency.regress import Answer, LatencyVerdict
from trtbuild.options.measure import BuildSpeedLimits, SpeedLimits
from trtbuild.verification.intervals import Estimate


def verdict(ratio: float, low: float, high: float) -> LatencyVerdict:
    return LatencyVerdict("float", "engine", Answer.FASTER, Estimate(ratio, low, high), 2.0, 0.5, 1)


@pytest.mark.parametrize(
    ("limit", "passed", "settled"),
    [(1.5, True, True), (2.0, True, False), (1.7, True, False), (2.6, False, True)],
)
def test_a_speed_is_judged_by_its_interval(limit: float, passed: bool, settled: bool) -> None:
    # half of float's time: twice as fast, surely 1.6 to 2.5 times
    found = speedup_finding(verdict(0.5, 0.4, 0.625), limit)
    assert (found.passed, found.settled) == (passed, settled)
    assert found.between == pytest.approx((1.6, 2.5))
    assert ("not decided" in str(found)) == (not settled)
    assert str(found).startswith("speed over float, batch 1: 2 x (1.6 to 2.5), at least")


def test_nothing_is_known_of_a_ratio_without_an_interval() -> None:
    found = speedup_finding(verdict(0.5, 0.0, math.inf), 1.5)
    assert (found.passed, found.settled) == (True, False)


def taken(rng: np.random.Generator, median_ms: float, turns: int = 60) -> Samples:
    runs = median_ms * rng.lognormal(0, 0.02, (turns, 5))
    return Samples("engine", 4, MONOTONIC, 5, tuple(runs.ravel().tolist()))


@pytest.mark.parametrize(("limit", "passed"), [(5.5, True), (4.5, False)])
def test_a_latency_on_one_side_of_its_limit(limit: float, passed: bool) -> None:
    found = latency_finding(taken(np.random.default_rng(0), 5.0), limit)
    assert (found.passed, found.settled) == (passed, True)
    assert str(found).startswith("median latency, batch 4: ")
    assert str(found).endswith(f"at most {limit:g} ms{'' if passed else ', failed'}")


def test_a_latency_at_its_limit_is_neither_refused_nor_shipped() -> None:
    rng = np.random.default_rng(1)
    found = [latency_finding(taken(rng, 5.0), 5.0) for _ in range(200)]
    # without noise of the machine, the interval holds the true median in 99.5 % of the cases
    assert sum(one.settled for one in found) <= 4


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_limits_that_all_or_none_meet_are_refused(value: float) -> None:
    with pytest.raises(OptionError, match="--min-speedup must be a number above 0"):
        SpeedLimits(min_speedup=value)


def test_limits_that_are_set_are_named() -> None:
    assert SpeedLimits().flags == ()
    both = BuildSpeedLimits(min_fp16_speedup=1.2, max_latency=5)
    assert both.flags == ("--max-latency", "--min-fp16-speedup")
