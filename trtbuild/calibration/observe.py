"""Stream samples through the float network and count what the watched tensors hold.

Every sample runs alone, on one thread: its activations are then the same bits whatever batch it is
in, whatever runs beside it, and however many threads there are. Small batches are no slower on a CPU
(one image's activations stay in the cache), and one run per core needs no synchronisation inside
operators. Memory holds a few samples' watched activations per thread (`ActivationRows`), however many
samples there are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from calibrators import Collector
from calibrators.histogram import as_float32
from trtbuild.calibration.rows import ActivationRows, Place
from trtbuild.calibration.statistics import Statistics
from trtbuild.calibration.threads import run_in_threads
from trtbuild.data import DataDigest, filled, load_feeds
from trtbuild.errors import DataError
from trtbuild.machine import usable_cpus
from trtbuild.progress import Progress, silent
from trtbuild.runtime.blocked_layout import open_blocked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.data import Sample
    from trtbuild.runtime.onnxruntime import OnnxRuntimeSession

__all__ = ["WatchedNetwork", "collect", "refuse_non_finite"]

# Samples that a thread is handed together.
_MOST_AT_A_TIME = 8


@dataclass(frozen=True)
class WatchedNetwork:
    """A float network whose outputs are the watched tensors.

    Attributes:
        model: the network, or the path of one, which other processes can open.
        tensors: what is watched: outputs of it, and inputs.
        static_batch: size of axis 0 where the network fixes it, else None.
    """

    model: ir.Model | Path = field(repr=False)
    tensors: tuple[str, ...]
    static_batch: int | None


def collect(
    network: WatchedNetwork,
    samples: Iterable[Sample],
    *,
    threads: int | None = None,
    total: int | None = None,
    progress: Progress = silent,
) -> Statistics:
    """Count what the watched tensors hold over `samples`; the same to the bit in any order.

    Args:
        network: what runs, and what is watched.
        samples: what to run it on.
        threads: each runs one sample at a time; None takes one per core.
        total: number of samples, for the progress.
        progress: told of every sample read.

    Raises:
        DataError: a sample does not load, or a tensor held NaN or infinity.
        ModelError: the network cannot be run on a sample.
    """
    session = open_blocked(network.model, threads=1)
    workers = [_Worker(network, session) for _ in range(threads or usable_cpus())]
    done = 0
    for portion in run_in_threads(workers, _portions(samples, workers[0])):
        for _ in portion:
            done += 1
            progress("calibrate", done, total)
    return functools.reduce(Statistics.merge, (worker.statistics for worker in workers))


def _portions(samples: Iterable[Sample], worker: _Worker) -> Iterator[list[tuple[int, Sample]]]:
    """Samples with their numbers, as they are handed to a thread: of a small network several at a time.

    Threads that meet less often wait less for each other, and a sample may take a millisecond only.
    """
    portion: list[tuple[int, Sample]] = []
    for numbered in enumerate(samples):
        portion.append(numbered)
        if len(portion) >= min(_MOST_AT_A_TIME, worker.capacity):
            yield portion
            portion = []
    if portion:
        yield portion


class _Worker:
    """What one thread does: runs samples, and counts their activations.

    Samples wait until there are enough of one half of the data to fill the rows.
    """

    def __init__(self, network: WatchedNetwork, session: OnnxRuntimeSession) -> None:
        self._batch_size = network.static_batch or 1
        self._session = session
        self._halves = (Collector(sorted(network.tensors)), Collector(sorted(network.tensors)))
        self._waiting: tuple[list[_Loaded], list[_Loaded]] = ([], [])
        self._rows: ActivationRows | None = None
        self._shapes_vary = False
        self._data = DataDigest()

    @property
    def capacity(self) -> int:
        """How many samples it runs at a time."""
        return 1 if self._rows is None else self._rows.capacity

    @property
    def statistics(self) -> Statistics:
        """What has been counted."""
        return Statistics(*self._halves, self._data)

    def take(self, item: list[tuple[int, Sample]]) -> None:
        """Read samples; they may be run and counted later, with others."""
        for number, sample in item:
            self._take(number, sample)

    def finish(self) -> None:
        """Run and count what is still waiting."""
        self._run_waiting(0)
        self._run_waiting(1)

    def _take(self, number: int, sample: Sample) -> None:
        # copies of the one sample in a fixed batch: all counts grow by one factor
        feeds = filled(load_feeds(sample), self._batch_size)
        self._data = self._data.plus(sample.key)
        half = sample.key[0] & 1
        loaded = _Loaded(Place(number, sample.name), feeds)
        if self._rows is None or not self._rows.fits(feeds):
            self.finish()
            self._run_alone(half, loaded)
            return
        self._waiting[half].append(loaded)
        if len(self._waiting[half]) == self._rows.capacity:
            self._run_waiting(half)

    def _run_waiting(self, half: int) -> None:
        waiting = self._waiting[half].copy()
        self._waiting[half].clear()
        num_done = 0
        if self._rows is not None:
            num_done = self._rows.fill(loaded.feeds for loaded in waiting)
            places = [loaded.place for loaded in waiting[:num_done]]
            _count(self._halves[half], _Rows(self._rows.first(num_done), places))
        for loaded in waiting[num_done:]:
            # Shapes of outputs may depend on values. If there is another reason, the run alone tells.
            self._shapes_vary = True
            self._run_alone(half, loaded)

    def _run_alone(self, half: int, loaded: _Loaded) -> None:
        """Run and count a sample by itself, and make room for others of its shape."""
        feeds = loaded.feeds
        given = self._session.run(feeds)
        outputs = {name: given[name] for name in given if name in self._halves[0].histograms}
        text = any(array.dtype.hasobject for array in feeds.values())
        has_rows = outputs and not text and not self._shapes_vary
        self._rows = ActivationRows(self._session, feeds, outputs) if has_rows else None
        arrays = {name: array[np.newaxis] for name, array in {**outputs, **feeds}.items()}
        _count(self._halves[half], _Rows(arrays, [loaded.place]))


class _Loaded(NamedTuple):
    """A sample that is ready to be run."""

    place: Place
    feeds: Mapping[str, np.ndarray]


class _Rows(NamedTuple):
    """Activations of some samples of one half of the data: tensor -> array of a row for each."""

    arrays: Mapping[str, np.ndarray]
    places: Sequence[Place]


def _count(collector: Collector, rows: _Rows) -> None:
    """Count the watched tensors of some samples.

    Raises:
        DataError: one of them holds NaN or infinity.
    """
    if not rows.places:
        return
    watched = {n: array for n, array in rows.arrays.items() if n in collector.histograms}
    collector.observe(watched, batch=rows.places[0].number)
    if not collector.non_finite:
        return
    for row, place in enumerate(rows.places):
        # as they were counted: a float64 may be finite and too large for a float32
        held = [n for n, a in watched.items() if not np.isfinite(as_float32(a[row])).all()]
        if held:
            refuse_non_finite(collector, f"for {place}", in_order=held)


def refuse_non_finite(collector: Collector, where: str, in_order: Sequence[str]) -> None:
    """Stop at NaN or infinity, and name the tensor that held it first.

    Args:
        collector: what was seen.
        where: sample or batch, for the message.
        in_order: names of the watched tensors, in the order in which the network computes them.

    Raises:
        DataError: a tensor held one; the message names tensor and place.
    """
    found = {entry.tensor: entry.kind for entry in collector.non_finite}
    for tensor in in_order:
        if tensor not in found:
            continue
        kind = "NaN" if found[tensor] == "nan" else "infinity"
        raise DataError(
            f"the tensor '{tensor}' holds {kind} {where}; check the data and the weights, or "
            "keep its readers in float with --float."
        )
