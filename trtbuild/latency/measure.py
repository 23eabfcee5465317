"""Latency samples of several sessions, taken in turns in one process: A B, B A, A B, ...

A machine is never steady: clocks change, other work comes and goes. Sessions that take turns every
few milliseconds meet the same conditions, so their *ratio* is far steadier than either latency. The
order of the turns is rotated and reversed from round to round, so that none always runs first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trtbuild.errors import OptionError
from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from trtbuild.backends.base import Feeds, Session
    from trtbuild.progress import Progress

__all__ = ["MONOTONIC", "MeasureOptions", "Samples", "TimedSession", "measure"]

MONOTONIC = "monotonic clock of the host, inputs and outputs in host memory"

# A turn lasts at least this long, so that what one session leaves behind (caches, spinning threads
# of a thread pool) weighs little on the next one's turn.
_TURN_MS = 4.0
_MAX_RUNS_PER_TURN = 64


class TimedSession(Protocol):
    """A session with a clock of its own (CUDA events); asked for when all sessions share it."""

    @property
    def clock(self) -> str:
        """What is timed, by what, and what is not; for reports."""
        ...

    def run_timed(self, feeds: Mapping[str, np.ndarray]) -> float:
        """Run once and give the latency, ms."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How long to measure.

    Attributes:
        warmup_ms: each session runs at least this long, and at least 3 times, before it counts.
        duration_ms: of the counted turns, all sessions together.
        min_rounds: at least so many turns each, however long they take.
        max_rounds: at most so many.
        runs_per_turn: None: as many as last some milliseconds, by the warm-up.
    """

    warmup_ms: float = 200.0
    duration_ms: float = 3000.0
    min_rounds: int = 12
    max_rounds: int = 10_000
    runs_per_turn: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise OptionError("latency needs 1 <= min_rounds <= max_rounds.")
        if not (self.duration_ms > 0 and self.warmup_ms >= 0):
            raise OptionError("latency needs a duration above 0 ms and a warm-up of at least 0 ms.")
        if self.runs_per_turn is not None and self.runs_per_turn < 1:
            raise OptionError("a turn needs at least 1 run.")


@dataclass(frozen=True)
class Samples:
    """Latencies of one session, in the order taken.

    Attributes:
        name: of the session.
        batch_size: images a run.
        clock: what was timed and by what.
        runs_per_turn: turn t is ``latencies_ms[t * runs_per_turn : (t + 1) * runs_per_turn]``;
            equal turns of samples taken together met the same conditions.
        latencies_ms: one number a run.
    """

    name: str
    batch_size: int
    clock: str
    runs_per_turn: int
    latencies_ms: tuple[float, ...]

    @property
    def turns(self) -> tuple[tuple[float, ...], ...]:
        """The latencies, turn by turn."""
        size, values = self.runs_per_turn, self.latencies_ms
        return tuple(values[start : start + size] for start in range(0, len(values), size))


def measure(
    sessions: Mapping[str, Session],
    feeds: Feeds | Sequence[Feeds],
    options: MeasureOptions | None = None,
    *,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> dict[str, Samples]:
    """Take latencies of all sessions in turns.

    The host's monotonic clock is read around `Session.run`, unless every session has the same clock
    of its own (`TimedSession`).

    Args:
        sessions: by name; the same object may stand under two names (A against A).
        feeds: what to run on; of several, one after the other, the same for all sessions. Real
            images rather than zeros: a GPU's power, and so its clock, depends on the values.
        options: how long.
        batch_size: images a run; None: length of the first axis of the first input.
        progress: told of the milliseconds done.

    Raises:
        OptionError: nothing to run, or nothing to run on.
    """
    options = options or MeasureOptions()
    many = [feeds] if isinstance(feeds, Mapping) else list(feeds)
    if not sessions or not many:
        raise OptionError("latency needs at least one session and one batch to run it on.")
    clock, timers = _timers(sessions)
    quickest = min(_warm_up(timer, many, options.warmup_ms) for timer in timers.values())
    size = options.runs_per_turn or _runs_per_turn(quickest)
    taken: dict[str, list[float]] = {name: [] for name in timers}
    spent, rounds = 0.0, 0
    while rounds < options.min_rounds or (
        spent < options.duration_ms and rounds < options.max_rounds
    ):
        for name in _order(list(timers), rounds):
            spent += _turn(timers[name], many, size, rounds, taken[name])
        rounds += 1
        progress("latency", int(spent), int(options.duration_ms))
    images = batch_size if batch_size is not None else _batch_size(many[0])
    return {
        name: Samples(name, images, clock, size, tuple(values)) for name, values in taken.items()
    }


def _timers(sessions: Mapping[str, Session]) -> tuple[str, dict[str, Callable[[Feeds], float]]]:
    clocks = {getattr(session, "clock", None) for session in sessions.values()}
    timed: dict[str, Any] = {n: getattr(s, "run_timed", None) for n, s in sessions.items()}
    clock = clocks.pop() if len(clocks) == 1 else None
    if clock is not None and all(timed.values()):
        return clock, timed
    return MONOTONIC, {name: _host_timer(session) for name, session in sessions.items()}


def _host_timer(session: Session) -> Callable[[Feeds], float]:
    def timer(feeds: Feeds) -> float:
        start = time.perf_counter_ns()
        session.run(feeds)
        return (time.perf_counter_ns() - start) / 1e6

    return timer


def _warm_up(timer: Callable[[Feeds], float], feeds: Sequence[Feeds], least_ms: float) -> float:
    """Run until warm; answers the quickest run, ms."""
    spent, runs, quickest = 0.0, 0, math.inf
    while runs < 3 or spent < least_ms:
        start = time.perf_counter_ns()
        quickest = min(quickest, timer(feeds[runs % len(feeds)]))
        spent += (time.perf_counter_ns() - start) / 1e6
        runs += 1
    return quickest


def _runs_per_turn(quickest_ms: float) -> int:
    return max(1, min(_MAX_RUNS_PER_TURN, math.ceil(_TURN_MS / max(quickest_ms, 1e-6))))


def _order(names: list[str], round_number: int) -> list[str]:
    start = (round_number // 2) % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if round_number % 2 else rotated


def _turn(
    timer: Callable[[Feeds], float],
    feeds: Sequence[Feeds],
    size: int,
    round_number: int,
    taken: list[float],
) -> float:
    """Take one turn, with one uncounted run ahead when it has several; answers its length, ms."""
    start = time.perf_counter_ns()
    if size > 1:
        timer(feeds[round_number % len(feeds)])
    runs = range(round_number * size, (round_number + 1) * size)
    taken.extend(timer(feeds[run % len(feeds)]) for run in runs)
    return (time.perf_counter_ns() - start) / 1e6


def _batch_size(feeds: Feeds) -> int:
    first = next(iter(feeds.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
