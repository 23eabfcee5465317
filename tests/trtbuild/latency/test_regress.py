"""Four answers: false alarms, planted slow-downs, and measurements too noisy to tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes import FunctionSession
from trtbuild.errors import OptionError
from trtbuild.latency.measure import MONOTONIC, MeasureOptions, Samples, measure
from trtbuild.latency.regress import (
    Answer,
    against_baseline,
    decide,
    is_within_reach,
    taken_together,
)
from trtbuild.latency.stats import median_interval, ratio
from trtbuild.verification.intervals import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.latency.regress import LatencyVerdict


def machine(
    rng: np.random.Generator, turns: int = 80, runs: int = 5, noise: float = 0.02
) -> tuple[np.ndarray, np.random.Generator]:
    """Latencies of successive turns on a machine with drift and outliers."""
    wander = np.cumsum(rng.normal(0, 0.01, turns))
    hiccups = rng.random(turns) < 0.05
    return np.exp(wander + hiccups * rng.exponential(0.5, turns)), rng


def taken(
    name: str, drift: np.ndarray, rng: np.random.Generator, factor: float = 1.0, noise: float = 0.02
) -> Samples:
    runs = drift[:, None] * rng.lognormal(0, noise, (len(drift), 5)) * factor
    return Samples(name, 1, MONOTONIC, 5, tuple(float(v) for v in runs.ravel()))


def verdicts(factor: float, count: int, noise: float = 0.02, margin: float = 2.0) -> list[Answer]:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        drift, _ = machine(rng)
        a, b, control = (
            taken(name, drift, rng, f, noise) for name, f in (("a", 1), ("b", factor), ("c", 1))
        )
        found.append(taken_together(a, b, control, margin).answer)
    return found


def test_an_engine_against_itself_is_rarely_called_different() -> None:
    found = verdicts(1.0, 400)
    different = sum(answer in (Answer.FASTER, Answer.SLOWER) for answer in found)
    # under 1 % is promised: 4 of 400
    assert different <= 4
    assert found.count(Answer.SAME) > 350


def test_three_percent_are_found_where_the_noise_allows() -> None:
    assert verdicts(1.03, 50, noise=0.01).count(Answer.SLOWER) >= 48
    assert verdicts(1 / 1.03, 50, noise=0.01).count(Answer.FASTER) >= 48


def test_five_percent_are_never_the_same() -> None:
    found = verdicts(1.05, 200, noise=0.1)
    assert Answer.SAME not in found
    assert Answer.FASTER not in found


def test_too_much_noise_cannot_tell() -> None:
    assert Answer.CANNOT_TELL in set(verdicts(1.01, 20, noise=0.5))


@pytest.mark.parametrize(
    ("low", "value", "high", "answer"),
    [
        (0.99, 1.0, 1.01, Answer.SAME),
        (1.005, 1.01, 1.015, Answer.SAME),
        (1.005, 1.02, 1.03, Answer.SLOWER),
        (0.9, 0.95, 0.99, Answer.FASTER),
        (0.97, 1.0, 1.03, Answer.CANNOT_TELL),
        (0.0, 1.5, math.inf, Answer.CANNOT_TELL),
    ],
)
def test_the_interval_and_the_margin_decide_the_answer(
    low: float, value: float, high: float, answer: Answer
) -> None:
    assert decide("a", "b", Estimate(value, low, high), 0.0, 2.0).answer is answer


def test_the_base_differing_from_itself_widens_the_interval() -> None:
    found = decide("a", "b", Estimate(1.03, 1.02, 1.04), math.log(1.05), 2.0)
    assert found.answer is Answer.CANNOT_TELL
    assert found.noise_percent == pytest.approx(5.0)
    # 1.05 * 1.04 / 1.03 above, and the low end is as far below
    assert found.smallest_visible_percent == pytest.approx(6.06, abs=0.05)


def test_a_baseline_of_a_steady_machine_shows_ten_percent() -> None:
    rng = np.random.default_rng(3)
    steady = np.ones(200)
    base, same, slow = (taken(n, steady, rng, f) for n, f in (("a", 1), ("b", 1), ("c", 1.1)))
    assert against_baseline(base, same, 5.0).answer is Answer.SAME
    assert against_baseline(base, slow, 5.0).answer is Answer.SLOWER


def test_a_baseline_of_a_wandering_machine_raises_no_false_alarm() -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(100):
        a, b = (taken(n, machine(rng)[0], rng) for n in "ab")
        found.append(against_baseline(a, b, 5.0).answer)
    # two random walks from the same clock: what a machine does between two days is unknown, but within the
    # drift of each day there must be only few false alarms
    assert sum(answer in (Answer.FASTER, Answer.SLOWER) for answer in found) <= 5


def test_a_baseline_of_another_batch_size_or_clock_is_refused() -> None:
    rng = np.random.default_rng(5)
    base = taken("a", np.ones(20), rng)
    other = Samples("b", 8, base.clock, 5, base.latencies_ms)
    with pytest.raises(OptionError, match=r"at batch 1 by .* at batch 8"):
        against_baseline(base, other)


def test_a_baseline_is_held_against_each_of_ten_segments() -> None:
    # the machine is 10 % slower in the sixth tenth only, which halves would not show
    drift = np.ones(200)
    drift[100:120] = 1.1
    rng = np.random.default_rng(6)
    base = taken("a", drift, rng, noise=1e-6)
    found = against_baseline(base, taken("b", np.ones(200), rng, noise=1e-6))
    assert found.noise_percent == pytest.approx(10.0, abs=0.1)


def test_the_intervals_of_both_days_hold_together() -> None:
    rng = np.random.default_rng(8)
    drifts = [np.exp(rng.normal(0, 0.05, 60)) for _ in range(2)]
    base, now = (taken(n, drift, rng, noise=1e-9) for n, drift in zip("ab", drifts))
    found = against_baseline(base, now)
    logs = [[math.log(float(np.median(turn))) for turn in s.turns] for s in (base, now)]
    # 99.5 % for both together: 99.75 % for each
    earlier, later = (median_interval(values, 0.9975) for values in logs)
    noise = math.log1p(found.noise_percent / 100)
    assert math.log(found.ratio.high) == pytest.approx(later.high - earlier.low + noise)
    assert math.log(found.ratio.low) == pytest.approx(later.low - earlier.high - noise)


def steady(name: str, latency_ms: float) -> Samples:
    return Samples(name, 1, MONOTONIC, 5, (latency_ms,) * 200)


@pytest.mark.parametrize("compare", [taken_together, against_baseline])
@pytest.mark.parametrize(
    ("factor", "answer"),
    [
        # two sessions of one file differ by up to 0.4 %: half a percent is no difference, more is one
        (1.004, Answer.CANNOT_TELL),
        (1.006, Answer.SLOWER),
        (1 / 1.004, Answer.CANNOT_TELL),
        (1 / 1.006, Answer.FASTER),
    ],
)
def test_half_a_percent_may_come_from_the_place_in_memory(
    compare: Callable[..., LatencyVerdict], factor: float, answer: Answer
) -> None:
    found = compare(steady("a", 1.0), steady("b", factor), margin_percent=0.1)
    assert found.answer is answer
    assert found.noise_percent == pytest.approx(100 * math.expm1(0.005))


def test_a_control_that_differs_more_counts_for_more() -> None:
    found = taken_together(steady("a", 1.0), steady("b", 1.01), steady("c", 1.02))
    assert found.noise_percent == pytest.approx(2.0)
    assert found.answer is Answer.CANNOT_TELL


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.95, 0.90, 1.02), True),  # a quarter of it lies below 1
        ((1.00, 0.95, 1.05), True),  # and here within 2 %
        ((0.95, 0.70, 1.40), False),
        ((1.00, 0.50, 2.00), False),
        ((1.00, 1.02**-3.9, 1.02**3.9), True),  # a quarter of the width is just within 2 %
        ((1.00, 1.02**-4.1, 1.02**4.1), False),
        ((1.00, 0.00, math.inf), True),  # too few turns for an interval
        ((1.50, 1.40, 1.60), True),  # has its answer
    ],
)
def test_an_answer_is_within_reach_of_a_narrower_interval(interval, expected: bool) -> None:
    verdict = decide("a", "b", Estimate(*interval), 0.0, 2.0)
    assert is_within_reach(verdict) is expected


def test_the_default_margin_and_confidence_are_as_documented() -> None:
    rng = np.random.default_rng(9)
    base, other, control = (taken(n, np.exp(rng.normal(0, 0.01, 80)), rng) for n in "abc")
    found = taken_together(base, other, control)
    assert found.margin_percent == 2.0
    whole = ratio(base, other, 0.995)
    noise = math.log1p(found.noise_percent / 100)
    assert math.log(found.ratio.high) == pytest.approx(math.log(whole.high) + noise)


@pytest.mark.nightly
def test_two_hundred_comparisons_of_one_computation_on_this_machine() -> None:
    weights = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    feeds = {"x": weights}

    def compute(x: np.ndarray) -> np.ndarray:
        return x @ weights

    different = 0
    for _ in range(200):
        sessions = {name: FunctionSession(compute) for name in "abc"}
        found = measure(sessions, feeds, MeasureOptions(warmup_ms=20, duration_ms=400))
        answer = taken_together(found["a"], found["b"], found["c"]).answer
        different += answer in (Answer.FASTER, Answer.SLOWER)
    assert different <= 2


def in_turns(name: str, turns: list[float]) -> Samples:
    return Samples(name, 1, MONOTONIC, 5, tuple(np.repeat(turns, 5)))


def test_medians_that_contradict_the_pairs_are_not_passed_over() -> None:
    # two speeds of the machine: b takes 0.98 of a in 31 of 33 pairs, but its median run takes longer
    a = in_turns("a", [1.0] * 17 + [2.0] * 16)
    b = in_turns("b", [0.98] * 15 + [1.96] * 2 + [1.96] * 16)
    assert ratio(a, b).value == pytest.approx(0.98)
    assert np.median(b.latencies_ms) > 1.9 * np.median(a.latencies_ms)
    found = taken_together(a, b)
    assert found.answer is Answer.CANNOT_TELL
    assert found.ratio.high > 1.9
