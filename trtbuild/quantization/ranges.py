"""From the ranges of a calibration to the scale and zero point of every quantized tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import InputError
from trtbuild.quantization.onnxruntime_placement import difference
from trtbuild.quantization.plan import Placement, Plan, QuantParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange

__all__ = ["plan_with_ranges"]


def plan_with_ranges(
    model: ir.Model,
    placement: Placement,
    calibration: Calibration,
    params: Callable[[TensorRange], QuantParams],
) -> Plan:
    """Turn ranges into scales. A tensor with several roots takes the widest of their ranges.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        calibration: its ranges.
        params: scale and zero point of a range, as the form to be written has them.

    Raises:
        InputError: a range is missing, zero or not finite.
    """
    found: dict[str, QuantParams] = {}
    for name, roots in placement.roots.items():
        ranges = [_range(model, placement, calibration, root) for root in sorted(roots)]
        found[name] = params(max(ranges, key=lambda r: r.amax))
    for name, (total, addend) in placement.differences.items():
        found[name] = difference(found[total], found[addend])
    return Plan(placement.consumers, placement.weights, found)


def _range(
    model: ir.Model, placement: Placement, calibration: Calibration, name: str
) -> TensorRange:
    given = calibration.ranges.get(name)
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
    """The INT8 layers next to a tensor, in the order of the graph."""
    selected = {point.node for point in placement.weights}
    value = next(v for v in _values(model) if v.name == name)
    near = _reach([value.producer()], selected, _makers)
    near |= _reach([use.node for use in value.uses()], selected, _readers)
    return (node.name or "" for node in model.graph if node.name in near)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _reach(
    start: Iterable[ir.Node | None],
    stops: set[str],
    following: Callable[[ir.Node], Iterable[ir.Node | None]],
) -> set[str]:
    """Names of the `stops` that are met first when going from `start` to what `following` gives."""
    found, seen, waiting = set(), set(), [node for node in start if node is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name in stops:
            found.add(node.name)
        else:
            waiting += [other for other in following(node) if other is not None]
    return found


def _makers(node: ir.Node) -> Iterator[ir.Node | None]:
    return (value.producer() for value in node.inputs if value is not None)


def _readers(node: ir.Node) -> Iterator[ir.Node | None]:
    return (use.node for value in node.outputs for use in value.uses())
