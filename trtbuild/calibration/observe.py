"""Stream samples through the float network and count what the watched tensors hold.

Every sample runs alone, on one thread: its activations are then the same bits whatever batch it is
in, whatever runs beside it, and however many workers there are. Small batches are no slower on a CPU
(one image's activations stay in the cache), and one session per core needs no synchronisation inside
operators. Memory holds one sample's watched activations per worker, however many samples there are.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Collector
from trtbuild.backends.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.calibration.threads import run_in_threads
from trtbuild.calibration.watch import watching
from trtbuild.data import batches
from trtbuild.errors import DataError
from trtbuild.model import model_bytes, static_batch
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx_ir as ir

    from trtbuild.data import Batch, Sample

__all__ = ["collect"]


def collect(
    model: ir.Model,
    samples: Iterable[Sample],
    tensors: Collection[str],
    *,
    workers: int | None = None,
    total: int | None = None,
    progress: Progress = silent,
) -> Collector:
    """Count the values of `tensors` over `samples`; equal to the bit for any order and any `workers`.

    Args:
        model: the float network.
        samples: what to run.
        tensors: names of inputs and inner tensors to watch.
        workers: threads, each with a session of its own; None takes one per core.
        total: number of samples, for the progress.
        progress: told of every finished sample.

    Raises:
        DataError: there is no sample, one does not load, or a tensor held NaN or infinity.
        ModelError: the network cannot be run on a sample.
    """
    count = workers or len(os.sched_getaffinity(0))
    watched = model_bytes(watching(model, tensors))
    repeat = static_batch(model) or 1
    parts = [
        _Worker(
            open_session(watched, Execution.FLOAT, threads=1), Collector(sorted(tensors)), repeat
        )
        for _ in range(count)
    ]
    done = 0
    for _ in run_in_threads([part.observe for part in parts], enumerate(batches(samples, 1))):
        done += 1
        progress("calibrate", done, total)
    if not done:
        raise DataError("there is no calibration sample.")
    return functools.reduce(Collector.merge, (part.collector for part in parts))


@dataclass(frozen=True)
class _Worker:
    """A session and a collector that one thread uses."""

    session: OnnxRuntimeSession
    collector: Collector
    repeat: int

    def observe(self, item: tuple[int, Batch]) -> None:
        """Run one sample and count its watched tensors."""
        number, batch = item
        feeds = batch.feeds
        if self.repeat > 1:
            # A fixed batch is filled with copies of the one sample: all counts grow by one factor.
            feeds = {name: np.repeat(array, self.repeat, axis=0) for name, array in feeds.items()}
        arrays = {**self.session.run(feeds), **feeds}
        names = self.collector.histograms
        self.collector.observe({n: a for n, a in arrays.items() if n in names}, batch=number)
        for found in self.collector.non_finite:
            kind = "NaN" if found.kind == "nan" else "infinity"
            raise DataError(
                f"the tensor '{found.tensor}' holds {kind} for the sample '{batch.names[0]}' (number "
                f"{number}); check the data and the weights, or keep its readers in float with --float."
            )
