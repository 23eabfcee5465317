"""Calibrate with the network on a GPU: activations stay there, and only their counts reach the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibrators import Collector
from trtbuild.calibration.observe import refuse_non_finite
from trtbuild.calibration.rows import Place
from trtbuild.calibration.statistics import Statistics
from trtbuild.data import DataDigest, filled, load_feeds
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from trtbuild.calibration.observe import WatchedNetwork
    from trtbuild.data import Sample

__all__ = ["collect_on_device"]


def collect_on_device(
    network: WatchedNetwork,
    samples: Iterable[Sample],
    device: str = "cuda",
    *,
    total: int | None = None,
    progress: Progress = silent,
) -> Statistics:
    """Count what the watched tensors hold over `samples`, on the device that computes them.

    Every sample runs alone, so the answer depends on no order. A GPU sums in another order than a CPU:
    activations, and so ranges, are near those of `trtbuild.calibration.collect`, not equal.

    Args:
        network: what runs, and what is watched.
        samples: what to run it on.
        device: ``cuda``, or ``cpu``.
        total: number of samples, for the progress.
        progress: told of every sample.

    Raises:
        DataError: a sample does not load, or a tensor held NaN or infinity.
        MissingError: PyTorch or ONNX Runtime's CUDA provider is not there.
        ModelError: the network cannot be run on a sample.
    """
    from trtbuild.pytorch import require_torch

    require_torch()
    session = open_session(network.model, Execution.FLOAT, threads=1, device=device)
    halves = (Collector(sorted(network.tensors)), Collector(sorted(network.tensors)))
    data = DataDigest()
    for number, sample in enumerate(samples):
        feeds = filled(load_feeds(sample), network.static_batch or 1)
        outputs = session.run_on_device(feeds)
        _count(halves[sample.key[0] & 1], outputs, feeds, Place(number, sample.name))
        data = data.plus(sample.key)
        progress("calibrate", number + 1, total)
    return Statistics(*halves, data)


def _count(
    collector: Collector, outputs: Mapping[str, Any], feeds: Mapping[str, np.ndarray], place: Place
) -> None:
    """Count the watched outputs where they are, and the watched inputs on the host.

    Raises:
        DataError: one of them holds NaN or infinity.
    """
    from trtbuild.pytorch.device_histogram import device_histogram

    watched = [name for name in (*outputs, *feeds) if name in collector.histograms]
    for name in watched:
        if name in outputs:
            collector.add(name, device_histogram(outputs[name]), batch=place.number)
        else:
            collector.observe({name: feeds[name]}, batch=place.number)
    if collector.non_finite:
        refuse_non_finite(collector, f"for {place}", in_order=watched)
