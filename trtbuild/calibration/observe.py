"""Stream samples through the float network and count what the watched tensors hold.

Every sample runs alone, on one thread: its activations are then the same bits whatever batch it is
in, whatever runs beside it, and however many threads there are. Small batches are no slower on a CPU
(one image's activations stay in the cache), and one run per core needs no synchronisation inside
operators. Memory holds a few samples' watched activations per thread (`ActivationRows`), however many
samples there are.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Collector
from trtbuild.backends.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.calibration.rows import ActivationRows, Place
from trtbuild.calibration.statistics import Statistics
from trtbuild.calibration.threads import run_in_threads
from trtbuild.data import DataDigest, filled, load_feeds
from trtbuild.errors import DataError, ModelError
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trtbuild.data import Sample

__all__ = ["WatchedNetwork", "collect", "refuse_non_finite"]


@dataclass(frozen=True)
class WatchedNetwork:
    """A float network whose outputs are the watched tensors; can be sent to other processes.

    Attributes:
        content: the serialised network.
        tensors: what is watched: outputs of it, and inputs.
        static_batch: size of axis 0 where the network fixes it, else None.
    """

    content: bytes = field(repr=False)
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
    session = open_session(network.content, Execution.FLOAT, threads=1)
    workers = [_Worker(network, session) for _ in range(threads or len(os.sched_getaffinity(0)))]
    items = enumerate(samples)
    for done, _ in enumerate(run_in_threads([worker.observe for worker in workers], items), 1):
        progress("calibrate", done, total)
    return functools.reduce(Statistics.merge, (worker.finish() for worker in workers))


class _Worker:
    """What one thread does: runs samples, and counts their activations."""

    def __init__(self, network: WatchedNetwork, session: OnnxRuntimeSession) -> None:
        self._rows = network.static_batch or 1
        self._halves = (_Half(network.tensors, session), _Half(network.tensors, session))
        self._data = DataDigest()

    def observe(self, item: tuple[int, Sample]) -> None:
        """Run one sample and count its watched tensors."""
        number, sample = item
        # copies of the one sample in a fixed batch: all counts grow by one factor
        feeds = filled(load_feeds(sample), self._rows)
        self._halves[sample.key[0] & 1].add(Place(number, sample.name), feeds)
        self._data = self._data.plus(sample.key)

    def finish(self) -> Statistics:
        """Count what is still waiting, and answer everything this worker has seen."""
        first, second = self._halves
        return Statistics(first.finish(), second.finish(), self._data)


class _Half:
    """The statistics of one half of the data."""

    def __init__(self, tensors: Sequence[str], session: OnnxRuntimeSession) -> None:
        self._collector = Collector(sorted(tensors))
        self._session = session
        self._rows: ActivationRows | None = None

    def add(self, place: Place, feeds: Mapping[str, np.ndarray]) -> None:
        """Run one sample; it may be counted later, with others."""
        if self._rows is None or not self._rows.fits(feeds):
            self._start_rows(place, feeds)
            return
        try:
            self._rows.fill(place, feeds)
        except ModelError:
            # shapes of outputs may depend on values; the run on its own tells
            self._start_rows(place, feeds)
            return
        if self._rows.is_full:
            self._count_rows()

    def finish(self) -> Collector:
        """Count what is waiting, and answer the statistics."""
        self._count_rows()
        return self._collector

    def _start_rows(self, place: Place, feeds: Mapping[str, np.ndarray]) -> None:
        """Count a sample by itself, and make room for others of its shape."""
        self._count_rows()
        outputs = self._session.run(feeds)
        self._rows = ActivationRows(self._session, feeds, outputs)
        self._count({n: a[np.newaxis] for n, a in {**outputs, **feeds}.items()}, [place])

    def _count_rows(self) -> None:
        if self._rows is not None and self._rows.places:
            self._count(*self._rows.take())

    def _count(self, arrays: Mapping[str, np.ndarray], places: Sequence[Place]) -> None:
        """Count arrays that hold a row for each of `places`."""
        watched = {n: rows for n, rows in arrays.items() if n in self._collector.histograms}
        self._collector.observe(watched, batch=places[0].number)
        if not self._collector.non_finite:
            return
        for row, place in enumerate(places):
            held = [n for n, rows in watched.items() if not np.isfinite(rows[row]).all()]
            if held:
                refuse_non_finite(self._collector, f"for {place}", in_order=held)


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
