"""What a node reads through Q/DQ, and what it gives to network outputs through Q/DQ."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.diff.bodies import read_by
from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, constant_tensor, is_constant
from trtbuild.model.graph_library import ir
from trtbuild.model.qdq import along_axis, is_qdq
from trtbuild.model.traversal import maker
from trtbuild.plan import INT8_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Read", "bytes_read", "ends_of", "origin", "outputs_given", "reads_of"]


@dataclass(frozen=True)
class Read:
    """A tensor that goes through Q/DQ on its way to a node, or from a node to an output of the network.

    Attributes:
        index: which input of the node; outer values that its bodies read are counted after the inputs. -1 is
            the first output of the network, -2 the second, and so on.
        tensor: the float tensor before Q; the constant's name for a weight.
        is_weight: whether it is a constant.
        kind: the type of the integers.
        amax: the largest magnitude that is not clipped: 127 times the scale in INT8 with zero point 0. With
            several scales, the largest. None if the scale is computed, or for 32-bit integers, which clip
            nothing.
        num_scales: one, or one per channel; 0 if computed.
        zero_point: the first one.
        scales: scales of all Q and DQ on the way; empty for a constant.
        form: everything else that must match: zero points, types, axes; for a constant, the integers and
            scales.
    """

    index: int
    tensor: str
    is_weight: bool
    kind: ir.DataType
    amax: float | None
    num_scales: int
    zero_point: int
    scales: tuple[float, ...]
    form: str


def reads_of(node: ir.Node) -> Iterator[Read]:
    """Return what a node and its bodies read through Q/DQ."""
    for index, value in enumerate(read_by(node)):
        if value is not None and maker(value, "DequantizeLinear") is not None:
            yield _read(index, value)


def outputs_given(node: ir.Node) -> Iterator[Read]:
    """Return the network outputs that a node gives through Q/DQ."""
    for _, end in ends_of(node):
        if end.producer() is not node:
            yield _read(-1 - _place(end), end)


def ends_of(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """Return (output index of the node, network output) for all network outputs it gives, skipping Q/DQ."""
    for index, value in enumerate(node.outputs):
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if one.is_graph_output():
                yield index, one
            waiting += [out for use in one.uses() if is_qdq(use.node) and use.idx == 0
                        for out in use.node.outputs]  # fmt: skip


def origin(value: ir.Value | None) -> ir.Value | None:
    """Return the float tensor before all Q/DQ that `value` comes from, or `value` itself."""
    while (node := maker(value, "DequantizeLinear", "QuantizeLinear")) is not None:
        value = node.inputs[0]
    return value


def bytes_read(value: ir.Value | None) -> int:
    """Return the bytes of a constant, with the scales and zero points of its Q/DQ; 0 if it is computed."""
    found = [origin(value)]
    for node in _way(value):
        found += node.inputs[1:]
    if not is_constant(found[0]):
        return 0
    tensors = (constant_tensor(one) for one in dict.fromkeys(found))
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _place(end: ir.Value) -> int:
    graph = end.graph
    assert graph is not None
    return next(place for place, output in enumerate(graph.outputs) if output is end)


def _way(value: ir.Value | None) -> list[ir.Node]:
    """The Q and DQ nodes that a value comes from, the last one first."""
    found = []
    while (node := maker(value, "DequantizeLinear", "QuantizeLinear")) is not None:
        found.append(node)
        value = node.inputs[0]
    return found


def _read(index: int, value: ir.Value) -> Read:
    way, before = _way(value), origin(value)
    is_weight = is_constant(before)
    scales, zeros = array(way[0].inputs[1]), array(input_at(way[0], 2))
    zero = 0 if zeros is None or not zeros.size else int(zeros.reshape(-1)[0])
    kind = _kind(way[0])
    largest = None
    if scales is not None and scales.size and kind is not ir.DataType.INT32:
        largest = float(np.max(scales))
    return Read(
        index=index,
        tensor=(before.name if before is not None else None) or "",
        is_weight=is_weight,
        kind=kind,
        amax=None if largest is None else largest * _limit(kind, zero),
        num_scales=0 if scales is None else int(scales.size),
        zero_point=zero,
        scales=() if is_weight else tuple(_all_scales(way)),
        form=_constant_form(way, before) if is_weight else _form(way, before),
    )


def _kind(node: ir.Node) -> ir.DataType:
    """The type of the integers that a DQ reads, or that a Q gives."""
    stored = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    tensor = constant_tensor(stored)
    if tensor is not None:
        return tensor.dtype
    if stored is not None and stored.dtype is not None:
        return stored.dtype
    zero = constant_tensor(input_at(node, 2))
    if zero is not None:
        return zero.dtype
    return ir.DataType(attribute(node, "output_dtype", 0) or ir.DataType.UINT8)


def _limit(kind: ir.DataType, zero_point: int) -> float:
    """Number of steps from zero to the largest magnitude that is not clipped."""
    if kind is ir.DataType.INT8 and zero_point == 0:
        return INT8_LIMIT
    return float(max(zero_point - kind.min, kind.max - zero_point))


def _all_scales(way: list[ir.Node]) -> Iterator[float]:
    for node in way:
        scales = array(node.inputs[1])
        yield from () if scales is None else (float(one) for one in scales.reshape(-1))


def _form(way: list[ir.Node], before: ir.Value | None) -> str:
    """Everything except the values of the scales, as text."""
    rank = None if before is None or before.shape is None else before.shape.rank()
    return "; ".join(
        f"{node.op_type} {_kind(node)} {_axis(node, rank)} {_zeros(node)} "
        f"{attribute(node, 'block_size', 0)} {attribute(node, 'saturate', 1)} {_num_scales(node)}"
        for node in way
    )


def _num_scales(node: ir.Node) -> int:
    scales = array(node.inputs[1])
    return -1 if scales is None else scales.size


def _axis(node: ir.Node, rank: int | None) -> int | None:
    """The axis of per-channel scales, from the front if the rank is known; None for a single scale."""
    if _num_scales(node) <= 1:
        return None
    axis = int(attribute(node, "axis", 1))
    return axis if rank is None else normal_axis(axis, rank)


def _zeros(node: ir.Node) -> str:
    """The zero points; empty if all are 0, whether or not they are written."""
    zeros = array(input_at(node, 2))
    return (
        ""
        if zeros is None or not zeros.astype(np.float64).any()
        else str(zeros.reshape(-1).tolist())
    )


def _constant_form(way: list[ir.Node], before: ir.Value | None) -> str:
    """A digest of a constant's integers and scales, the same whether stored as integers or as floats."""
    state = hashlib.blake2b(_form(way[:1], before).encode(), digest_size=8)
    known = array(before) if len(way) == 1 else _rounded(way[1]) if len(way) == 2 else None
    if known is None:  # more Q/DQ than one pair, or a type that NumPy does not round to
        state.update(_form(way, before).encode())
        known = array(before)
    for part in (known, *(array(node.inputs[1]) for node in way[: 1 if len(way) < 3 else None])):
        if part is not None:
            state.update(np.ascontiguousarray(part).tobytes())
    return state.hexdigest()


def _rounded(quantize: ir.Node) -> NDArray[Any] | None:
    """The integers of a constant before a Q; None if its numbers are computed, or for other types."""
    content, scale, zero = (array(input_at(quantize, place)) for place in range(3))
    kind = _kind(quantize)
    if content is None or scale is None or kind not in (ir.DataType.INT8, ir.DataType.UINT8):
        return None
    if attribute(quantize, "block_size", 0):
        return None
    axis = normal_axis(int(attribute(quantize, "axis", 1)), content.ndim)
    steps = np.rint(content / along_axis(scale, axis, content.ndim))
    if zero is not None:
        steps = steps + along_axis(zero, axis, content.ndim).astype(np.float64)
    found: NDArray[Any] = np.clip(steps, kind.min, kind.max).astype(kind.numpy())
    return found
