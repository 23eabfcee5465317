"""Times of layers come from the faster runs, without warm-up runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.latency.layer_times import measure_layers

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
