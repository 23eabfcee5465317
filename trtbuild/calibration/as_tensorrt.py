"""Calibrate as TensorRT 10 does: batch by batch in the order of the data, ranges that double.

The scales are those of ``IInt8EntropyCalibrator2``; they depend on the order and the size of the
batches. `calibrators.doubling` has the rule; here are the network and the scales that pooling shares.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from calibrators import with_shared_ranges
from calibrators.doubling import TensorRTCollector
from trtbuild.calibration.observe import refuse_non_finite
from trtbuild.calibration.watch import pooling_inputs, watch
from trtbuild.data import Batch, batches, filled
from trtbuild.errors import DataError
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from calibrators import Calibration
    from trtbuild.data import Sample
    from trtbuild.runtime.session import Session

__all__ = ["calibrate_as_tensorrt"]


def calibrate_as_tensorrt(
    model: ir.Model,
    samples: Iterable[Sample],
    tensors: Sequence[str],
    batch_size: int,
    *,
    provenance: Mapping[str, str],
    progress: Progress = silent,
) -> Calibration:
    """Find the ranges that TensorRT 10's entropy calibrator would find.

    Args:
        model: the float network.
        samples: in the order in which TensorRT would get them.
        tensors: what needs a range; also the order of a cache written from the answer.
        batch_size: samples a batch; a smaller last one counts like the others.
        provenance: of the calibration.
        progress: told of every batch.

    Raises:
        DataError: there is no sample, one does not load, or a tensor held NaN.
    """
    shared = _chains(pooling_inputs(model), tensors)
    watched = dict.fromkeys([*tensors, *shared.values()])
    network = watch(model, watched)
    session = open_session(network.model, Execution.FLOAT)
    collector = TensorRTCollector(watched)
    number = -1
    for number, group in enumerate(_groups(samples, batch_size)):
        arrays = _run_each(session, group, watched, network.static_batch)
        collector.observe(arrays, batch=number)
        _refuse_nan(collector, number, in_order=tuple(arrays))
        progress("calibrate", number + 1, None)
    if number < 0:
        raise DataError("there is no calibration sample.")
    found = with_shared_ranges(collector.calibration(provenance), shared)
    return replace(found, ranges={name: found.ranges[name] for name in tensors})


def _chains(pools: Mapping[str, str], tensors: Collection[str]) -> dict[str, str]:
    """The pooling outputs among `tensors`, and those that their chains lead over."""
    found: dict[str, str] = {}
    waiting = [name for name in tensors if name in pools]
    while waiting:
        name = waiting.pop()
        found[name] = pools[name]
        if pools[name] in pools and pools[name] not in found:
            waiting.append(pools[name])
    return found


def _groups(samples: Iterable[Sample], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches(samples, 1):
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _run_each(
    session: Session, group: Sequence[Batch], names: Collection[str], fixed: int | None
) -> dict[str, np.ndarray]:
    """Run the samples of a batch one by one, and put what they gave together."""
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for batch in group:
        feeds = filled(batch.feeds, fixed or 1)
        for name, array in {**session.run(feeds), **feeds}.items():
            if name in names:
                parts[name].append(array.ravel())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _refuse_nan(collector: TensorRTCollector, number: int, in_order: Sequence[str]) -> None:
    # infinity is a value that TensorRT has an answer to: an infinite scale
    if any(found.kind == "nan" for found in collector.statistics.non_finite):
        refuse_non_finite(collector.statistics, f"in batch {number}", in_order)
