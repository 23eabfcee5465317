"""From the ranges of a calibration to the scale and zero point of every quantized tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import InputError
from trtbuild.model.operators import CLIPPING
from trtbuild.plan import Placement, Plan, QuantParams
from trtbuild.quantization.neighbour_ranges import with_neighbours
from trtbuild.quantization.onnxruntime_placement import difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange

__all__ = ["plan_with_ranges"]


def plan_with_ranges(
    model: ir.Model,
    placement: Placement,
    calibration: Calibration,
    params: Callable[[TensorRange], QuantParams],
) -> Plan:
    """Return ranges turned into scales. A tensor with several roots takes the widest of their ranges.

    A range that the calibration lacks, as when groups went to float after it, comes from neighbours that
    it has.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        calibration: its ranges.
        params: scale and zero point of a range, as the form to be written has them.

    Raises:
        InputError: a range is missing, zero or not finite.
    """
    known = calibration.ranges
    if not placement.observed <= known.keys():
        known = with_neighbours(model, known)
    found: dict[str, QuantParams] = {}
    for name, roots in placement.roots.items():
        ranges = [_range(model, placement, known, root) for root in sorted(roots)]
        found[name] = params(max(ranges, key=lambda r: r.amax))
    for name, (total, addend) in placement.differences.items():
        found[name] = difference(found[total], found[addend])
    return Plan(placement.consumers, placement.weights, found)


def _range(
    model: ir.Model, placement: Placement, known: Mapping[str, TensorRange], name: str
) -> TensorRange:
    given = known.get(name)
    if given is None:
        raise InputError(
            f"the calibration has no range for the tensor '{name}'; it was made for another network or "
            "other options. Calibrate again."
        )
    if not 0 < given.amax < float("inf"):
        what = "was zero in every sample" if given.amax == 0 else f"has the range {given.amax:g}"
        layers = " ".join(f"--float '{layer}'" for layer in _layers_around(model, placement, name))
        raise InputError(
            f"the tensor '{name}' {what}, which has no INT8 form. Check the data and its preprocessing, "
            f"or keep the layers around it in float: {layers}."
        )
    return given


def _layers_around(model: ir.Model, placement: Placement, name: str) -> Iterator[str]:
    """The INT8 layers that read a tensor, and the one that it is the output of, in graph order."""
    selected = {point.node for point in placement.weights}
    value = next(v for v in _values(model) if v.name == name)
    near = {_maker(value)} | _readers(value, selected)
    return (node.name or "" for node in model.graph if node.name in near & selected)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _maker(value: ir.Value) -> str | None:
    """Name of the node that makes `value`, or that is fused with the activation that does."""
    node = value.producer()
    if node is not None and node.op_type in CLIPPING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return None if node is None else node.name


def _readers(value: ir.Value, selected: set[str]) -> set[str | None]:
    """Names of the `selected` nodes that are met first on the way from `value` to the outputs."""
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
