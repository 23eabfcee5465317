"""Times of layers come from the faster runs, without warm-up runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.latency.layer_times import measure_in_turns, measure_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.runtime.session import Feeds

WARM_UP = {"conv": 99.0, "branch": 99.0}


class Timed:
    """A profiler with known runs: three on each of two inputs, the first for warming up."""

    def __init__(self) -> None:
        self.turns: list[int] = []

    def run_profiled(self, feeds: Feeds, runs: int) -> None:
        del feeds
        self.turns.append(runs)

    def layer_runs_ms(self) -> list[Mapping[str, float]]:
        assert self.turns == [3, 3]
        return [
            *(WARM_UP, {"conv": 1.0, "branch": 4.0}, {"conv": 100.0}),
            *(WARM_UP, {"conv": 2.0}, {"conv": 3.0, "branch": 4.0}),
        ]

    def close(self) -> None:
        """Do nothing."""


def test_a_layer_takes_the_mean_of_its_faster_three_quarters() -> None:
    found = measure_layers(Timed(), [{}, {}], 4, "a test")
    assert found.runs == 4
    # The first three of 1, 2, 3 and 100 ms; a branch of 4 ms ran in two of the four.
    assert found.layers == {"conv": 2.0, "branch": 2.0}


class Noted:
    """A profiler that notes when it runs."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.taken = name, log, 0

    def run_profiled(self, feeds: Feeds, runs: int) -> None:
        del feeds
        self.log.append(self.name * runs)
        self.taken += runs

    def layer_runs_ms(self) -> list[Mapping[str, float]]:
        return [{"conv": 1.0}] * self.taken

    def close(self) -> None:
        """Do nothing."""


def test_sessions_take_turns_and_none_is_always_first() -> None:
    log: list[str] = []
    sessions = [Noted("a", log), Noted("b", log)]
    found = measure_in_turns(sessions, [{}], 5, "a test", rounds=2)
    # each turn has one warm-up run, and at least five runs count
    assert log == ["aaaa", "bbbb", "bbbb", "aaaa"]
    assert [one.runs for one in found] == [6, 6]
