"""The timing of a build ends early if, and only if, every comparison and every limit has its answer."""

from __future__ import annotations

import itertools
import time

import numpy as np
import onnx_ir as ir
import pytest

from tests.fakes import FunctionSession
from trtbuild.artifact import Artifact
from trtbuild.data import Batch
from trtbuild.jobs.speed import take_times
from trtbuild.options.measure import BuildSpeedLimits, MeasureOptions
from trtbuild.titles import ALSO, ENGINE, FLOAT, FP16

MODEL = ir.from_onnx_text(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }'
)
# a round takes a millisecond of the clock below; results are checked after 12.5, 25 and 40 %
OPTIONS = MeasureOptions(warmup_ms=0, duration_ms=400, runs_per_turn=1)
EARLY, WHOLE = 50, 400


class Timed(FunctionSession):
    """Takes these times in turn, by its own clock."""

    def __init__(self, *times_ms: float) -> None:
        super().__init__(lambda x: x)
        self._times = itertools.cycle(times_ms)

    def latencies_ms(self, feeds, runs: int, warmup: int) -> list[float]:
        return [next(self._times) for _ in range(runs)]


@pytest.mark.parametrize(
    ("limits", "others", "turns"),
    [
        ({}, {ENGINE: (1.0,)}, EARLY),  # faster
        ({}, {ENGINE: (2.0,)}, EARLY),  # the same
        ({}, {ENGINE: (1.95, 2.06)}, WHOLE),  # cannot tell
        ({}, {ENGINE: (1.0, 1.3)}, EARLY),  # faster, by an interval that is wide
        ({}, {ENGINE: (1.0, 4.0)}, EARLY),  # cannot tell, nor could it with the rest of the time
        ({}, {ENGINE: (1.0, 4.0), ALSO: (1.95, 2.06)}, WHOLE),
        ({"max_latency": 9.0}, {ENGINE: (1.0, 4.0)}, WHOLE),  # a limit is worth all the time
        ({}, {ENGINE: (1.0,), ALSO: (1.95, 2.06)}, WHOLE),
        ({}, {ENGINE: (1.0,), FP16: (1.5,)}, EARLY),
        ({}, {ENGINE: (1.0,), FP16: (0.96, 1.03)}, WHOLE),
        ({"max_latency": 1.5}, {ENGINE: (1.0,)}, EARLY),
        ({"max_latency": 0.5}, {ENGINE: (1.0,)}, EARLY),  # surely fails
        ({"max_latency": 1.001}, {ENGINE: (1.0,)}, WHOLE),
        ({"min_speedup": 1.9}, {ENGINE: (1.0,)}, EARLY),
        ({"min_speedup": 2.0}, {ENGINE: (1.0,)}, WHOLE),
        ({"min_speedup": 2.0}, {ENGINE: (0.5,), ALSO: (1.0,)}, WHOLE),
        ({"min_fp16_speedup": 1.5}, {ENGINE: (1.0,), FP16: (1.5,)}, WHOLE),
    ],
)
def test_no_longer_than_the_answers_need(limits, others, turns, monkeypatch) -> None:
    ticks = itertools.count(step=1_000_000)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))
    sessions = {FLOAT: Timed(2.0), **{name: Timed(*one) for name, one in others.items()}}
    few = [Batch({"x": np.zeros((1, 3), np.float32)}, None, ("a",))]
    artifact = Artifact("it", MODEL, MODEL)
    found = take_times(artifact, sessions, few, OPTIONS, BuildSpeedLimits(**limits))
    assert {len(one.turns) for one in found.samples.values()} == {turns}
    assert not any(session.closed for session in sessions.values())
