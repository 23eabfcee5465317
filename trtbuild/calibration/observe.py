"""Stream samples through the float network and count what the watched tensors hold.

Every sample runs alone, on one thread: its activations are then the same bits whatever batch it is
in, whatever runs beside it, and however many workers there are. Small batches are no slower on a CPU
(one image's activations stay in the cache), and one session per core needs no synchronisation inside
operators. Memory holds one sample's watched activations per worker, however many samples there are.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Collector
from trtbuild.backends.onnxruntime import Execution, OnnxRuntimeSession, open_session
from trtbuild.calibration.watch import watching
from trtbuild.data import batches
from trtbuild.errors import DataError
from trtbuild.model import static_batch
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

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
    watched = watching(model, tensors)
    collectors = [Collector(sorted(tensors)) for _ in range(count)]
    sessions = [open_session(watched, Execution.FLOAT, threads=1) for _ in range(count)]
    free: SimpleQueue[int] = SimpleQueue()
    for index in range(count):
        free.put(index)

    def observe(number: int, batch: Batch) -> None:
        index = free.get()
        try:
            _observe(sessions[index], collectors[index], batch, number, repeat)
        finally:
            free.put(index)

    repeat = static_batch(model) or 1
    done = 0
    with ThreadPoolExecutor(count) as pool:
        for _ in _bounded(pool, observe, batches(samples, 1), limit=2 * count):
            done += 1
            progress("calibrate", done, total)
    if not done:
        raise DataError("there is no calibration sample.")
    merged = collectors[0]
    for other in collectors[1:]:
        merged = merged.merge(other)
    return merged


def _bounded(
    pool: ThreadPoolExecutor, function: object, items: Iterable[Batch], limit: int
) -> Iterator[None]:
    """Run `function(number, item)` in `pool`, at most `limit` under way, and raise its first error."""
    running: set[Future[None]] = set()
    try:
        for number, item in enumerate(items):
            if len(running) >= limit:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
            running.add(pool.submit(function, number, item))  # type: ignore[arg-type]
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        for future in running:
            future.cancel()


def _observe(
    session: OnnxRuntimeSession, collector: Collector, batch: Batch, number: int, repeat: int
) -> None:
    feeds = batch.feeds
    if repeat > 1:
        # A fixed batch is filled with copies of the one sample: all counts grow by the same factor.
        feeds = {name: np.repeat(array, repeat, axis=0) for name, array in feeds.items()}
    arrays = {**session.run(feeds), **feeds}
    names = collector.histograms.keys()
    collector.observe({n: a for n, a in arrays.items() if n in names}, batch=number)
    bad = [entry for entry in collector.non_finite if entry.batch == number]
    if bad:
        kind = "NaN" if bad[0].kind == "nan" else "infinity"
        raise DataError(
            f"the tensor '{bad[0].tensor}' holds {kind} for the sample '{batch.names[0]}' (number "
            f"{number}); check the data and the weights, or keep its readers in float with --float."
        )
