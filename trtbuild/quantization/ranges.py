"""From the ranges of a calibration to the scale and zero point of every quantized tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from trtbuild.errors import InputError
from trtbuild.model.operators import CLIPPING
from trtbuild.model.traversal import values_by_name
from trtbuild.plan import Placement, Plan, QuantParams
from trtbuild.quantization.neighbour_ranges import with_neighbours
from trtbuild.quantization.onnxruntime_placement import difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange

__all__ = ["is_usable", "plan_with_ranges", "refuse_without_range", "without_range"]

_LEAST_AMAX = 255 * float(np.finfo(np.float32).smallest_normal)


def plan_with_ranges(
    model: ir.Model,
    placement: Placement,
    calibration: Calibration,
    params: Callable[[TensorRange], QuantParams],
) -> Plan:
    """Return the plan: ranges turned into scales. A tensor with several roots takes their widest range.

    If groups went to float after calibration, missing ranges are derived from neighbouring tensors. A tensor
    that was always zero, or has no usable range, gets no Q/DQ: its readers read floats.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        calibration: its ranges.
        params: turns a range into scale and zero point, for the form to be written.

    Raises:
        InputError: a range is missing.
    """
    known = _known(model, placement, calibration)
    found: dict[str, QuantParams] = {}
    for name, roots in placement.roots.items():
        widest = _widest(placement, known, roots)
        if is_usable(widest):
            found[name] = params(widest)
    lacking = [n for n, both in placement.differences.items() if not found.keys() >= set(both)]
    if lacking:
        known = with_neighbours(model, known)
    for name, (total, addend) in placement.differences.items():
        if name not in lacking:
            found[name] = difference(found[total], found[addend])
        elif is_usable(known.get(name)):
            found[name] = params(known[name])
    consumers = {name: readers for name, readers in placement.consumers.items() if name in found}
    return Plan(consumers, placement.weights, found)


def without_range(
    model: ir.Model, placement: Placement, calibration: Calibration
) -> dict[str, str]:
    """Return the quantized tensors without a usable scale -> why: always zero, never seen, or infinite.

    Raises:
        InputError: a range is missing.
    """
    known = _known(model, placement, calibration)
    found = {}
    for name, roots in placement.roots.items():
        widest = _widest(placement, known, roots)
        if not is_usable(widest):
            found[name] = _why(widest)
    return found


def is_usable(given: TensorRange | None) -> bool:
    """Return whether a range gives a usable scale: finite, and a normal FP32 number.

    A GPU treats subnormal numbers as zero, and would divide by zero.
    """
    return given is not None and _LEAST_AMAX <= given.amax < float("inf")


def _why(given: TensorRange) -> str:
    if given.num_values == 0 and given.amax == 0:
        return "held no value in any sample"
    if 0 < given.amax < _LEAST_AMAX:
        return f"reached {given.amax:g} at most, for which FP32 has no normal scale"
    return "was zero in every sample" if given.amax == 0 else f"has the range {given.amax:g}"


def _known(
    model: ir.Model, placement: Placement, calibration: Calibration
) -> Mapping[str, TensorRange]:
    known = calibration.ranges
    return known if placement.observed <= known.keys() else with_neighbours(model, known)


def _widest(
    placement: Placement, known: Mapping[str, TensorRange], roots: frozenset[str]
) -> TensorRange:
    ranges = [_range(known, root, whole=root in placement.unclipped) for root in sorted(roots)]
    return max(ranges, key=lambda one: one.amax)


def _range(known: Mapping[str, TensorRange], name: str, *, whole: bool) -> TensorRange:
    given = known.get(name)
    if given is None:
        raise InputError(
            f"the calibration has no range for the tensor '{name}'; it was made for another network or "
            "other options. Calibrate again."
        )
    return replace(given, amax=given.observed_amax) if whole and is_usable(given) else given


def refuse_without_range(
    model: ir.Model, placement: Placement, found: Mapping[str, str]
) -> NoReturn:
    """Raise the error for the first tensor of `without_range`.

    Raises:
        InputError: always; the message names the tensor and the layers around it.
    """
    name, what = next(iter(found.items()))
    layers = " ".join(f"--float '{layer}'" for layer in _layers_around(model, placement, name))
    raise InputError(
        f"the tensor '{name}' {what}, which has no INT8 form. Check the data and its preprocessing, "
        f"or keep the layers around it in float: {layers}."
    )


def _layers_around(model: ir.Model, placement: Placement, name: str) -> Iterator[str]:
    """The INT8 layers that read a tensor, and the one that computes it, in graph order."""
    selected = {point.node for point in placement.weights}
    value = values_by_name(model.graph)[name]
    near = {_maker(value)} | _readers(value, selected)
    return (node.name or "" for node in model.graph if node.name in near & selected)


def _maker(value: ir.Value) -> str | None:
    """Name of the node that computes `value`; if that is an activation, of the node before it."""
    node = value.producer()
    if node is not None and node.op_type in CLIPPING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return None if node is None else node.name


def _readers(value: ir.Value, selected: set[str]) -> set[str | None]:
    """Names of the first `selected` nodes on all paths from `value` to the outputs."""
    found: set[str | None] = set()
    seen: set[ir.Node] = set()
    waiting = [use.node for use in value.uses()]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name in selected:
            found.add(node.name)
        else:
            waiting += [use.node for output in node.outputs for use in output.uses()]
    return found
