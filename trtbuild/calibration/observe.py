"""Stream samples through the float network and count what the watched tensors hold.

Every sample runs alone, on one thread: its activations are then the same bits whatever batch it is
in, whatever runs beside it, and however many threads there are. Small batches are no slower on a CPU
(one image's activations stay in the cache), and one session per core needs no synchronisation inside
operators. Memory holds one sample's watched activations per thread, however many samples there are.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Collector
from trtbuild.backends.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.calibration.statistics import Statistics
from trtbuild.calibration.threads import run_in_threads
from trtbuild.data import batches, filled
from trtbuild.errors import DataError
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trtbuild.data import Sample

__all__ = ["WatchedNetwork", "collect", "refuse_non_finite"]

# Activations of several small samples are counted together: 8 MiB, which stay in the cache.
_VALUES_AT_A_TIME = 1 << 21


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
        threads: each with a session of its own; None takes one per core.
        total: number of samples, for the progress.
        progress: told of every sample read.

    Raises:
        DataError: a sample does not load, or a tensor held NaN or infinity.
        ModelError: the network cannot be run on a sample.
    """
    workers = [_Worker(network) for _ in range(threads or len(os.sched_getaffinity(0)))]
    items = enumerate(samples)
    for done, _ in enumerate(run_in_threads([worker.observe for worker in workers], items), 1):
        progress("calibrate", done, total)
    return functools.reduce(Statistics.merge, (worker.finish() for worker in workers))


class _Worker:
    """A session and the statistics of one thread."""

    def __init__(self, network: WatchedNetwork) -> None:
        self._session: OnnxRuntimeSession = open_session(
            network.content, Execution.FLOAT, threads=1
        )
        self._rows = network.static_batch or 1
        self._halves = (_Half(network.tensors), _Half(network.tensors))
        self._num_samples = 0

    def observe(self, item: tuple[int, Sample]) -> None:
        """Run one sample and count its watched tensors."""
        number, sample = item
        (batch,) = batches([sample], 1)
        # copies of the one sample in a fixed batch: all counts grow by one factor
        feeds = filled(batch.feeds, self._rows)
        arrays = {**self._session.run(feeds), **feeds}
        self._halves[sample.key[0] & 1].add(_Activations(number, sample.name, arrays))
        self._num_samples += 1

    def finish(self) -> Statistics:
        """Count what is still waiting, and answer everything this worker has seen."""
        first, second = self._halves
        return Statistics(first.finish(), second.finish(), self._num_samples)


@dataclass(frozen=True)
class _Activations:
    """What the watched tensors held for one sample."""

    number: int
    sample: str
    arrays: Mapping[str, np.ndarray]

    @property
    def non_finite(self) -> list[str]:
        """Names of the tensors with NaN or infinity, in the order in which they were computed."""
        return [name for name, array in self.arrays.items() if not np.isfinite(array).all()]


class _Half:
    """One half's statistics, counted for several samples at a time.

    A tensor's table of counts is some hundred KiB. Counted image by image, the tables of a small
    network would throw each other out of the cache all the time.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        self._collector = Collector(sorted(tensors))
        self._waiting: list[_Activations] = []
        self._num_values = 0

    def add(self, activations: _Activations) -> None:
        """Take one sample; it may be counted later."""
        self._waiting.append(activations)
        self._num_values += sum(array.size for array in activations.arrays.values())
        if self._num_values >= _VALUES_AT_A_TIME:
            self._count()

    def finish(self) -> Collector:
        """Count what is waiting, and answer the statistics."""
        self._count()
        return self._collector

    def _count(self) -> None:
        waiting, self._waiting, self._num_values = self._waiting, [], 0
        if not waiting:
            return
        for name in self._collector.histograms:
            arrays = [one.arrays[name] for one in waiting]
            values = arrays[0] if len(arrays) == 1 else np.concatenate([a.ravel() for a in arrays])
            self._collector.observe({name: values}, batch=waiting[0].number)
        if self._collector.non_finite:
            bad = next(one for one in waiting if one.non_finite)
            where = f"for the sample '{bad.sample}' (number {bad.number})"
            refuse_non_finite(self._collector, where, in_order=bad.non_finite)


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
