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

from trtbuild.backends.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.calibration.statistics import Statistics
from trtbuild.calibration.threads import run_in_threads
from trtbuild.data import batches, filled
from trtbuild.errors import DataError
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from calibrators import Collector
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
    return functools.reduce(Statistics.merge, (worker.statistics for worker in workers))


class _Worker:
    """A session and the statistics of one thread."""

    def __init__(self, network: WatchedNetwork) -> None:
        self._session: OnnxRuntimeSession = open_session(
            network.content, Execution.FLOAT, threads=1
        )
        self._rows = network.static_batch or 1
        self._statistics = Statistics.empty(network.tensors)
        self._num_samples = 0

    @property
    def statistics(self) -> Statistics:
        """What this worker has seen."""
        return Statistics(self._statistics.first, self._statistics.second, self._num_samples)

    def observe(self, item: tuple[int, Sample]) -> None:
        """Run one sample and count its watched tensors."""
        number, sample = item
        (batch,) = batches([sample], 1)
        # copies of the one sample in a fixed batch: all counts grow by one factor
        feeds = filled(batch.feeds, self._rows)
        arrays = {**self._session.run(feeds), **feeds}
        half = self._statistics.second if sample.key[0] & 1 else self._statistics.first
        half.observe({n: a for n, a in arrays.items() if n in half.histograms}, batch=number)
        self._num_samples += 1
        where = f"for the sample '{sample.name}' (number {number})"
        refuse_non_finite(half, where, in_order=tuple(arrays))


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
        if tensor in found:
            kind = "NaN" if found[tensor] == "nan" else "infinity"
            raise DataError(
                f"the tensor '{tensor}' holds {kind} {where}; check the data and the weights, or keep "
                "its readers in float with --float."
            )
