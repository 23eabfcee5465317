"""Calibrate as TensorRT 10 does: batch by batch in the order of the data, with ranges that double.

The scales are those of ``IInt8EntropyCalibrator2``; they depend on order and size of the batches.
`calibrators.doubling` has the rule; this module runs the network and shares scales across pooling.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrators import with_shared_ranges
from calibrators.doubling import TensorRTCollector
from trtbuild.calibration.histograms import refuse_non_finite
from trtbuild.calibration.network import observed_network, pooling_inputs
from trtbuild.calibration.observe import Observer, observe
from trtbuild.errors import DataError
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from calibrators import Calibration
    from trtbuild.calibration.observe import Place
    from trtbuild.data import Sample

__all__ = ["calibrate_as_tensorrt"]


def calibrate_as_tensorrt(
    model: ir.Model,
    samples: Iterable[Sample],
    tensors: Sequence[str],
    batch_size: int,
    *,
    provenance: Mapping[str, str],
) -> Calibration:
    """Find the ranges that TensorRT 10's entropy calibrator would find.

    Args:
        model: the float network.
        samples: the samples, in the order in which TensorRT would get them.
        tensors: names of the tensors that need a range; the result, and a cache made of it, keep this order.
        batch_size: samples per batch; a smaller last batch counts like the others.
        provenance: provenance of the calibration.

    Raises:
        DataError: there is no sample, one does not load, or a tensor holds NaN.
    """
    shared = _chains(pooling_inputs(model), tensors)
    network = observed_network(model, dict.fromkeys([*tensors, *shared.values()]))
    session = open_session(network.model, Execution.FLOAT)
    observer = _InBatches(network.tensors, batch_size)
    observe(session, samples, [observer], static_batch=network.static_batch)
    found = with_shared_ranges(observer.finished().calibration(provenance), shared)
    return replace(found, ranges={name: found.ranges[name] for name in tensors})


def _chains(pools: Mapping[str, str], tensors: Collection[str]) -> dict[str, str]:
    """Output -> input of pooling layers: of those in `tensors`, and of pooling layers before them."""
    found: dict[str, str] = {}
    waiting = [name for name in tensors if name in pools]
    while waiting:
        name = waiting.pop()
        found[name] = pools[name]
        if pools[name] in pools and pools[name] not in found:
            waiting.append(pools[name])
    return found


class _InBatches(Observer):
    """Passes the tensors of whole batches to TensorRT's collector."""

    def __init__(self, tensors: Iterable[str], batch_size: int) -> None:
        self._collector = TensorRTCollector(tensors)
        self._batch_size = batch_size
        self._batch: dict[str, list[np.ndarray]] = defaultdict(list)
        self._num_samples = 0

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors that are counted."""
        return self._collector.doubling.keys()

    def update(self, tensors: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Keep the tensors of some samples, and count them when a batch is complete; see `Observer`.

        Raises:
            DataError: a batch holds NaN.
        """
        for row in range(len(places)):
            for name, values in tensors.items():
                self._batch[name].append(values[row].flatten())
            self._num_samples += 1
            if self._num_samples % self._batch_size == 0:
                self._count()

    def finished(self) -> TensorRTCollector:
        """Count the last batch, which may be smaller, and return the collector.

        Raises:
            DataError: there was no sample, or the last batch holds NaN.
        """
        if not self._num_samples:
            raise DataError("there are no calibration samples.")
        if self._batch:
            self._count()
        return self._collector

    def _count(self) -> None:
        number = (self._num_samples - 1) // self._batch_size
        arrays = {name: np.concatenate(parts) for name, parts in self._batch.items()}
        self._batch.clear()
        self._collector.observe(arrays, batch=number)
        statistics = self._collector.statistics
        # infinity is allowed: TensorRT gives the tensor an infinite scale
        if any(found.kind == "nan" for found in statistics.non_finite):
            refuse_non_finite(statistics, f"in batch {number}", tuple(arrays))
