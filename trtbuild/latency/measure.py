"""Latency samples of several sessions, taken in turns in one process: A B, B A, A B, ...

A machine is never steady: clocks change, other work comes and goes. Sessions that take turns every
few milliseconds meet the same conditions, so their *ratio* is far steadier than either latency. The
order of the turns is rotated and reversed from round to round, so that no session always runs first.

The caller can look at the samples before the time is over, and stop. Whoever looks repeatedly at intervals
of 99.5 % finds something by luck in more than 5 of 1000 measurements. So these 5 are divided: 0.5 for each
look, the rest for the end. All intervals of a measurement together then hold as one of 99.5 % does
(Bonferroni's inequality).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, runtime_checkable

from trtbuild.errors import OptionError
from trtbuild.model.signature import in_own_floats
from trtbuild.options.measure import MeasureOptions
from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from trtbuild.progress import Progress
    from trtbuild.runtime.session import Feeds, Session

__all__ = [
    "CONFIDENCE",
    "EVENTS",
    "MONOTONIC",
    "MeasureOptions",
    "Samples",
    "TimedSession",
    "measure",
]

CONFIDENCE = 0.995
"""Confidence in all that is said of a measurement, over all looks at it."""

MONOTONIC = "monotonic clock of the host, inputs and outputs in host memory"
EVENTS = "CUDA events around the execution, copies not counted"

# Shortest turn. What one session leaves behind (caches, spinning threads of a thread pool) must weigh
# little in the next session's turn.
_TURN_MS = 4.0
_MAX_RUNS_PER_TURN = 64

# A warm-up that may end early is checked this many times; it goes on while runs get faster by this share.
_WARM_UP_SPANS = 10
_STILL_WARMING = 0.01
_LEAST_WARM_UP_RUNS = 3

# Shares of the time at which the samples are looked at, and the error probability of each look. In a
# build, an eighth is some 20 rounds; 12 are the fewest that can answer, if no round contradicts.
_LOOKS = (0.125, 0.25, 0.4)
_ERROR_OF_A_LOOK = 0.0005


_Taker: TypeAlias = "Callable[[Feeds, int, int], list[float]]"


@runtime_checkable
class TimedSession(Protocol):
    """A session that times itself by CUDA events; these times are used if all sessions can."""

    def latencies_ms(
        self, feeds: Mapping[str, np.ndarray], runs: int, warmup: int
    ) -> Sequence[float] | np.ndarray:
        """Run `warmup` times uncounted, then `runs` times; return the milliseconds of the latter."""
        ...


@dataclass(frozen=True)
class Samples:
    """Latencies of one session, in the order of the runs.

    Attributes:
        name: name of the session.
        batch_size: images per run.
        clock: what was timed, and by which clock.
        runs_per_turn: turn t is ``latencies_ms[t * runs_per_turn : (t + 1) * runs_per_turn]``;
            turns of the same number in samples taken together met the same conditions.
        latencies_ms: one number per run.
        confidence: confidence of each interval, chosen so that all looks together hold with `CONFIDENCE`.
    """

    confidence: ClassVar[float] = CONFIDENCE

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


@dataclass(frozen=True)
class _AtALook(Samples):
    """The samples at a look."""

    confidence: ClassVar[float] = 1.0 - _ERROR_OF_A_LOOK


@dataclass(frozen=True)
class _AfterLooks(Samples):
    """The samples at the end of a measurement that was also looked at before; see the module."""

    confidence: ClassVar[float] = CONFIDENCE + len(_LOOKS) * _ERROR_OF_A_LOOK


def measure(
    sessions: Mapping[str, Session],
    feeds: Feeds | Sequence[Feeds],
    options: MeasureOptions | None = None,
    *,
    batch_size: int | None = None,
    is_enough: Callable[[Mapping[str, Samples]], bool] | None = None,
    progress: Progress = silent,
) -> dict[str, Samples]:
    """Take latencies of all sessions in turns.

    The host's monotonic clock is read around `Session.run`, unless every session times itself by CUDA
    events (`TimedSession`).

    Args:
        sessions: by name; the same object may have two names (A against A).
        feeds: the inputs to run on; each turn takes one of several, the same for all sessions; floats are
            cast to each session's own types before. Use real images, not zeros: a GPU's power, and so its
            clock, depends on the values.
        options: how long to measure.
        batch_size: images per run; None: length of the first axis of the first input.
        is_enough: called up to three times before the time is over; True ends the measurement. With it, the
            warm-up of sessions that do not time themselves may end early, too. GPU sessions time
            themselves: their clock rises only after the first runs.
        progress: called with the milliseconds done.

    Raises:
        OptionError: there is no session, or no feeds.
    """
    options = options or MeasureOptions()
    many = _batches(sessions, feeds)
    own = {n: [in_own_floats(one, s.inputs) for one in many] for n, s in sessions.items()}
    clock, takers = _takers(sessions)
    quickest = _all_warmed_up(sessions, takers, own, options.warmup_ms, bool(is_enough))
    size = options.runs_per_turn or _runs_per_turn(quickest)
    images = batch_size if batch_size is not None else _batch_size(many[0])
    taken: dict[str, list[float]] = {name: [] for name in takers}

    def samples(kind: type[Samples]) -> dict[str, Samples]:
        return {n: kind(n, images, clock, size, tuple(values)) for n, values in taken.items()}

    looks = [share * options.duration_ms for share in _LOOKS] if is_enough else []
    spent, rounds, total = 0.0, 0, int(options.duration_ms)
    while rounds < options.min_rounds or (
        spent < options.duration_ms and rounds < options.max_rounds
    ):
        start = time.perf_counter_ns()
        for name, latencies in _turns(takers, own, rounds, size):
            taken[name] += latencies
        spent += _since_ms(start)
        rounds += 1
        # the end is reported once, below
        progress("latency", min(int(spent), max(total - 1, 0)), total)
        if is_enough and looks and spent >= looks[0] and rounds >= options.min_rounds:
            looks = [one for one in looks if one > spent]
            if is_enough(samples(_AtALook)):
                progress("latency", total, total)
                return samples(_AtALook)
    progress("latency", total, total)
    return samples(_AfterLooks if is_enough else Samples)


def _turns(
    takers: Mapping[str, _Taker], feeds: Mapping[str, Sequence[Feeds]], rounds: int, size: int
) -> Iterator[tuple[str, list[float]]]:
    """Run each session's turn of a round, and yield its latencies."""
    for name in _order(list(takers), rounds):
        own = feeds[name]
        # a turn of several runs starts with one that is not counted
        yield name, takers[name](own[rounds % len(own)], size, min(size - 1, 1))


def _batches(sessions: Mapping[str, Session], feeds: Feeds | Sequence[Feeds]) -> list[Feeds]:
    """The feeds as a list, which must not be empty."""
    many = [feeds] if isinstance(feeds, Mapping) else list(feeds)
    if not sessions or not many:
        raise OptionError("latency needs at least one session and one batch to run it on.")
    return many


def _all_warmed_up(
    sessions: Mapping[str, Session],
    takers: Mapping[str, _Taker],
    feeds: Mapping[str, Sequence[Feeds]],
    least_ms: float,
    may_end: bool,
) -> float:
    """Warm up each session once, even if it has several names; return the quickest run, in ms."""
    distinct = {id(session): name for name, session in sessions.items()}
    return min(
        _warm_up(
            takers[name],
            feeds[name],
            least_ms,
            ends_early=may_end and not isinstance(sessions[name], TimedSession),
        )
        for name in distinct.values()
    )


def _takers(sessions: Mapping[str, Session]) -> tuple[str, dict[str, _Taker]]:
    timed = {name: _by_events(session) for name, session in sessions.items()}
    found = {name: taker for name, taker in timed.items() if taker is not None}
    if len(found) == len(sessions):
        return EVENTS, found
    return MONOTONIC, {name: _by_host_clock(session) for name, session in sessions.items()}


def _by_events(session: Session) -> _Taker | None:
    if not isinstance(session, TimedSession):
        return None

    def take(feeds: Feeds, runs: int, warmup: int) -> list[float]:
        return [float(value) for value in session.latencies_ms(feeds, runs=runs, warmup=warmup)]

    return take


def _by_host_clock(session: Session) -> _Taker:
    def once(feeds: Feeds) -> float:
        start = time.perf_counter_ns()
        session.run(feeds)
        return _since_ms(start)

    def take(feeds: Feeds, runs: int, warmup: int) -> list[float]:
        return [once(feeds) for _ in range(warmup + runs)][warmup:]

    return take


def _since_ms(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6


def _warm_up(taker: _Taker, feeds: Sequence[Feeds], least_ms: float, *, ends_early: bool) -> float:
    """Run until warm; return the time of the quickest run, in ms.

    Args:
        taker: runs the session.
        feeds: the inputs, one per run.
        least_ms: how long.
        ends_early: whether to stop as soon as more runs are no longer faster.
    """
    start, runs, quickest = time.perf_counter_ns(), 0, math.inf
    spans = _WARM_UP_SPANS if ends_early else 1
    for span in range(1, spans + 1):
        before = quickest
        while runs < _LEAST_WARM_UP_RUNS or _since_ms(start) < least_ms * span / spans:
            quickest = min(quickest, *taker(feeds[runs % len(feeds)], 1, 0), math.inf)
            runs += 1
        if quickest > (1 - _STILL_WARMING) * before:
            break
    return quickest


def _runs_per_turn(quickest_ms: float) -> int:
    return max(1, min(_MAX_RUNS_PER_TURN, math.ceil(_TURN_MS / max(quickest_ms, 1e-6))))


def _order(names: list[str], round_number: int) -> list[str]:
    start = (round_number // 2) % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if round_number % 2 else rotated


def _batch_size(feeds: Feeds) -> int:
    first = next(iter(feeds.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
