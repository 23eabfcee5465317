"""Tensors that take another's range.

TensorRT gives the output of a pooling layer (max, average, global average) the scale of its input.
Which tensors those are, the graph knows; it is told here as output -> input.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from calibrators.errors import MergeError
from calibrators.methods import assess
from calibrators.ranges import Calibration, TensorRange

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["with_shared_ranges"]


def with_shared_ranges(calibration: Calibration, inputs: Mapping[str, str]) -> Calibration:
    """Give tensors the amax of others, along chains.

    Args:
        calibration: what was found tensor by tensor.
        inputs: tensor to the one whose amax it takes; which need not be in `calibration` if its own
            input is.

    Returns:
        A calibration in which every key of `inputs` has a range, noted as shared. The range's other
        figures are of the tensor itself where it was watched, else of the tensor at the chain's
        end.

    Raises:
        MergeError: a chain ends at a tensor without a range, or runs in a circle.
    """
    ranges = dict(calibration.ranges)
    for name in inputs:
        source = _end_of_chain(name, inputs, calibration)
        ranges[name] = _shared(calibration, name, source)
    return dataclasses.replace(calibration, ranges=ranges)


def _end_of_chain(name: str, inputs: Mapping[str, str], calibration: Calibration) -> str:
    end, passed = name, {name}
    while end in inputs:
        end = inputs[end]
        if end in passed:
            raise MergeError(f"tensor '{name}' would take its own range; break the circle.")
        passed.add(end)
    if end not in calibration.ranges:
        raise MergeError(f"tensor '{name}' is to take the range of '{end}', which has none.")
    return end


def _shared(calibration: Calibration, name: str, source: str) -> TensorRange:
    given = calibration.ranges[source]
    note = f"takes the range of '{source}'"
    own = calibration.ranges.get(name)
    histogram = (calibration.histograms or {}).get(name)
    if own is None or histogram is None or not 0 < given.amax < float("inf"):
        return dataclasses.replace(own or given, amax=given.amax, note=note)
    return TensorRange.of(histogram, assess(histogram, given.amax, given.method, note))
