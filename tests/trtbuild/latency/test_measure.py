"""Taking turns, warm-up and clocks, on sessions whose latency is known."""

from __future__ import annotations

import itertools
import time
from dataclasses import fields

import numpy as np
import pytest

from tests.fakes import FunctionSession
from trtbuild.errors import OptionError
from trtbuild.latency.limits import latency_finding
from trtbuild.latency.measure import (
    CONFIDENCE,
    EVENTS,
    MONOTONIC,
    MeasureOptions,
    Samples,
    measure,
)
from trtbuild.latency.regress import Answer, against_baseline, taken_together

FEEDS = {"x": np.zeros((2, 3), np.float32)}
SHORT = MeasureOptions(warmup_ms=0, duration_ms=1, min_rounds=6, runs_per_turn=2)


class Logged(FunctionSession):
    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(lambda x: x)
        self.name, self.log = name, log

    def run(self, feeds):
        self.log.append(self.name)
        return super().run(feeds)


class WithEvents(FunctionSession):
    def __init__(self, latency_ms: float) -> None:
        super().__init__(lambda x: x)
        self._latency_ms = latency_ms

    def latencies_ms(self, feeds, runs: int, warmup: int) -> np.ndarray:
        return np.full(runs, self._latency_ms)


def test_sessions_take_turns_and_none_is_always_first() -> None:
    log: list[str] = []
    found = measure({"a": Logged("a", log), "b": Logged("b", log)}, FEEDS, SHORT)
    rounds = len(found["a"].turns)
    counted = log[6:]  # after three warm-up runs of each
    turns = [
        "".join(counted[i : i + 3]) for i in range(0, len(counted), 3)
    ]  # 1 ahead and 2 counted
    assert set(turns) == {"aaa", "bbb"}
    firsts = turns[::2]
    assert all(one != other for one, other in zip(firsts, turns[1::2]))
    assert abs(firsts.count("aaa") - firsts.count("bbb")) <= 1
    assert len(found["a"].latencies_ms) == 2 * rounds == len(found["b"].latencies_ms)


def test_the_host_clock_sees_what_a_session_takes() -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.003)
        return x

    found = measure({"slow": FunctionSession(slow)}, FEEDS, SHORT)["slow"]
    assert found.clock == MONOTONIC
    assert found.batch_size == 2
    assert min(found.latencies_ms) >= 3.0


def test_events_are_used_and_said_where_all_sessions_have_them() -> None:
    found = measure({"a": WithEvents(1.5), "b": WithEvents(2.5)}, FEEDS, SHORT)
    assert found["a"].clock == EVENTS
    assert set(found["b"].latencies_ms) == {2.5}


def test_clocks_that_differ_are_not_mixed() -> None:
    found = measure({"a": WithEvents(1e6), "b": FunctionSession(lambda x: x)}, FEEDS, SHORT)
    assert found["a"].clock == found["b"].clock == MONOTONIC
    assert max(found["a"].latencies_ms) < 1e5


def test_quick_sessions_get_longer_turns() -> None:
    options = MeasureOptions(warmup_ms=0, duration_ms=1, min_rounds=2)
    assert measure({"a": WithEvents(0.5)}, FEEDS, options)["a"].runs_per_turn == 8
    assert measure({"a": WithEvents(50.0)}, FEEDS, options)["a"].runs_per_turn == 1
    assert measure({"a": WithEvents(1e-4)}, FEEDS, options)["a"].runs_per_turn == 64


def test_order_turns_round_every_round_and_every_session_leads() -> None:
    log: list[str] = []
    options = MeasureOptions(warmup_ms=0, duration_ms=1e-9, min_rounds=6, runs_per_turn=1)
    measure({name: Logged(name, log) for name in "abc"}, FEEDS, options)
    assert log[:9] == [*"aaabbbccc"]  # at least three runs of each before anything counts
    assert "".join(log[9:]) == "abccbabcaacbcabbac"


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_rounds": 0},
        {"duration_ms": 0.0},
        {"runs_per_turn": 0},
        {"min_rounds": 9, "max_rounds": 8},
    ],
)
def test_options_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(OptionError):
        MeasureOptions(**wrong)


def test_measuring_no_session_is_refused() -> None:
    with pytest.raises(OptionError, match="at least one"):
        measure({}, FEEDS)


def test_progress_reports_the_end_once() -> None:
    told: list[tuple[int, int | None]] = []
    sessions = {"a": FunctionSession(lambda x: x)}
    measure(sessions, FEEDS, SHORT, progress=lambda _, done, total: told.append((done, total)))
    assert told.count((1, 1)) == 1
    assert told[-1] == (1, 1)


@pytest.mark.parametrize("wrong", [np.inf, np.nan, -1.0])
@pytest.mark.parametrize("name", ["duration_ms", "warmup_ms"])
def test_a_duration_that_is_no_positive_number_is_refused(name, wrong):
    with pytest.raises(OptionError, match=r"--(seconds|warmup-ms) must be"):
        MeasureOptions(**{name: wrong})


@pytest.fixture
def steady_clock(monkeypatch) -> None:
    """A clock that advances by a millisecond with each reading."""
    ticks = itertools.count(step=1_000_000)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))


ANY = FunctionSession(lambda x: x)
LONG = MeasureOptions(warmup_ms=0, duration_ms=1000, min_rounds=12, runs_per_turn=1)


def test_measuring_stops_when_the_caller_has_seen_enough(steady_clock) -> None:
    asked = []

    def is_enough(taken) -> bool:
        asked.append(len(taken["a"].turns))
        return len(asked) == 2

    found = measure({"a": ANY}, FEEDS, LONG, is_enough=is_enough)["a"]
    whole = measure({"a": ANY}, FEEDS, LONG)["a"]
    assert asked[0] < asked[1] == len(found.turns) < len(whole.turns) / 2


@pytest.mark.parametrize("kind", ["host", "events"])
@pytest.mark.parametrize("looks", [True, False])
def test_a_warm_up_ends_early_where_it_may_and_brings_no_quicker_run(kind, looks, monkeypatch):
    now = itertools.count()
    times = itertools.chain([9, 5, 4, 3], itertools.repeat(3))  # ms of each run
    clock = [0]

    def run(x):
        next(now)
        clock[0] += 1_000_000 * next(times)
        return x

    class ByEvents(FunctionSession):
        def latencies_ms(self, feeds, runs: int, warmup: int) -> list[float]:
            return [run(3.0) for _ in range(runs)]

    session = (ByEvents if kind == "events" else FunctionSession)(run)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])
    options = MeasureOptions(
        warmup_ms=200, duration_ms=1, min_rounds=1, max_rounds=1, runs_per_turn=1
    )
    measure({"a": session}, FEEDS, options, is_enough=(lambda _: True) if looks else None)
    warm_up = next(now) - 1
    # four runs in its first tenth, and seven in the second, which are no faster; else 200 ms
    assert warm_up == (11 if kind == "host" and looks else 64)


def test_all_looks_together_err_no_more_than_one_interval(steady_clock) -> None:
    seen = []

    def is_enough(taken) -> bool:
        seen.append(taken["a"].confidence)
        return False

    last = measure({"a": ANY}, FEEDS, LONG, is_enough=is_enough)["a"]
    assert len(seen) == 3
    errors = [1 - one for one in (*seen, last.confidence)]
    assert sum(errors) == pytest.approx(1 - CONFIDENCE)
    assert measure({"a": ANY}, FEEDS, LONG)["a"].confidence == CONFIDENCE


def test_looks_are_after_an_eighth_a_quarter_and_two_fifths_of_the_time(monkeypatch) -> None:
    ticks = itertools.count(step=1_000_000)  # a round takes a millisecond
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))
    seen = []

    def is_enough(taken) -> bool:
        seen.append(len(taken["a"].turns))
        return False

    options = MeasureOptions(warmup_ms=0, duration_ms=400, runs_per_turn=1)
    last = measure({"a": WithEvents(1.0)}, FEEDS, options, is_enough=is_enough)["a"]
    assert (seen, len(last.turns)) == ([50, 100, 160], 400)


def test_an_answer_at_a_look_takes_more_turns(steady_clock) -> None:
    # all of n turns on one side: 2 of 2**n, so 9 turns decide at 99.5 %, and 12 at the 99.95 % of a check
    answers = []

    def is_enough(taken) -> bool:
        look, base = taken["b"], taken["a"]
        for samples in (look, Samples(*(getattr(look, f.name) for f in fields(look)))):
            verdicts = taken_together(base, samples), against_baseline(base, samples)
            answers.append(
                (*(one.answer for one in verdicts), latency_finding(samples, 1.5).settled)
            )
        return True

    sessions = {"a": WithEvents(1.0), "b": WithEvents(2.0)}
    options = MeasureOptions(warmup_ms=0, duration_ms=1, min_rounds=11, runs_per_turn=1)
    found = measure(sessions, FEEDS, options, is_enough=is_enough)
    assert len(found["a"].turns) == 11
    assert answers[0] == (Answer.CANNOT_TELL, Answer.CANNOT_TELL, False)
    assert answers[1][0] is Answer.SLOWER
    assert answers[1][2]
