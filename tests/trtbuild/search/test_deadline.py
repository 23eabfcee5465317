"""The clock of a limit of time, on an idle and on a busy machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trtbuild.search import deadline
from trtbuild.search.deadline import Deadline, WorkClock


@pytest.mark.parametrize(
    ("wall", "processor", "counted"),
    [
        (10.0, 20.0, 10.0),  # two threads on two idle cores
        (10.0, 10.0, 10.0),
        (10.0, 2.0, 2.0),  # others have four fifths of the machine
        (80.0, 0.0, 10.0),  # work in other processes
    ],
)
def test_time_in_which_others_have_the_processors_does_not_count(
    monkeypatch, wall: float, processor: float, counted: float
) -> None:
    times = {"wall": 1000.0, "processor": 50.0}
    clocks = SimpleNamespace(
        monotonic=lambda: times["wall"], process_time=lambda: times["processor"]
    )
    monkeypatch.setattr(deadline, "time", clocks)
    clock = WorkClock()
    limits = [Deadline.after(counted + off, clock) for off in (-0.1, 0.1)]
    times["wall"] += wall
    times["processor"] += processor
    assert clock() == pytest.approx(counted)
    assert [limit.is_over for limit in limits] == [True, False]
