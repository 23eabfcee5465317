"""The length of one axis of a tensor: from its recorded dims, else from the nodes that make it.

Shape inference gives up after a Reshape to a computed shape, but the length of a channel axis still follows
from the weights, splits and slices on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import integers, is_constant
from trtbuild.model.operators import BROADCASTING, QDQ, UNARY
from trtbuild.model.shapes import dims, static_dims

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["attribute_ints", "axis_length", "reshape_target"]

_DEEPEST = 12
_SAME_SHAPE = UNARY | QDQ | {"Softmax", "LogSoftmax"}


def axis_length(value: ir.Value | None, axis: int, depth: int = _DEEPEST) -> int | None:
    """Return the length of `axis` of a tensor; None where it does not follow from the graph.

    Args:
        value: the tensor.
        axis: negative values count from the last one.
        depth: how many nodes to go back at most.
    """
    known = dims(value)
    if known is not None and -len(known) <= axis < len(known):
        length = known[axis]
        if isinstance(length, int):
            return length
    node = None if value is None else value.producer()
    if node is None or value is None or depth == 0 or node.domain != "":
        return None
    return _made(node, value, axis, depth - 1)


def _made(node: ir.Node, value: ir.Value, axis: int, depth: int) -> int | None:
    found: int | None = None
    op = "same shape" if node.op_type in _SAME_SHAPE else node.op_type
    op = "broadcasting" if node.op_type in BROADCASTING else op
    match op:
        case "same shape":
            found = axis_length(node.inputs[0], axis, depth)
        case "broadcasting":
            lengths = (axis_length(one, axis, depth) for one in node.inputs if not is_constant(one))
            found = next((one for one in lengths if one is not None and one > 1), None)
        case "Conv" if axis == 1:
            weight = static_dims(node.inputs[1])
            found = None if weight is None else weight[0]
        case "Concat":
            found = _joined(node, axis, depth)
        case "Split" if node.attributes.get_int("axis", 0) == axis:
            found = _split(node, value, axis, depth)
        case "Slice":
            found = _sliced(node, axis, depth)
        case "Reshape":
            target = reshape_target(node) or ()
            size = target[axis] if -len(target) <= axis < len(target) else None
            found = size if isinstance(size, int) and size > 0 else None
    return found


def attribute_ints(node: ir.Node, name: str) -> tuple[int, ...]:
    """Return an attribute of integers; empty where it is absent."""
    return tuple(node.attributes.get_ints(name, ()) or ())


def _split(node: ir.Node, value: ir.Value, axis: int, depth: int) -> int | None:
    sizes = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    given = sizes or attribute_ints(node, "split")
    if given:
        return given[list(node.outputs).index(value)]
    whole, count = axis_length(node.inputs[0], axis, depth), len(node.outputs)
    return None if whole is None or whole % count else whole // count


def _joined(node: ir.Node, axis: int, depth: int) -> int | None:
    if node.attributes.get_int("axis", 1) != axis:
        return axis_length(node.inputs[0], axis, depth)
    pieces = [axis_length(one, axis, depth) for one in node.inputs]
    return None if None in pieces else sum(one or 0 for one in pieces)


def _sliced(node: ir.Node, axis: int, depth: int) -> int | None:
    if len(node.inputs) > 1:
        given = [integers(one) or () for one in node.inputs[1:]]
    else:
        given = [attribute_ints(node, name) for name in ("starts", "ends", "axes")]
    starts, ends, axes, steps = (*given, (), ())[:4]
    if not starts or len(starts) != len(ends) or set(steps) - {1}:
        return None
    places = axes or tuple(range(len(starts)))
    whole = axis_length(node.inputs[0], axis, depth)
    if axis not in places:
        return whole
    start, end = starts[places.index(axis)], ends[places.index(axis)]
    if whole is not None:
        return len(range(*slice(start, end).indices(whole)))
    return end - start if 0 <= start < end < (1 << 31) else None


def reshape_target(node: ir.Node) -> tuple[int | str | None, ...] | None:
    """Return the dims that a Reshape or Flatten gives: 0 copies the input's dim, None is unknown."""
    known = dims(node.outputs[0])
    if node.op_type == "Flatten" or len(node.inputs) < 2:
        return known
    given = integers(node.inputs[1])
    if given is not None:
        return tuple(None if size == -1 else size for size in given)
    shape = node.inputs[1]
    maker = None if shape is None else shape.producer()
    if known is None and maker is not None and maker.op_type == "Concat":
        return tuple(_one_dim(piece) for piece in maker.inputs)
    return known


def _one_dim(piece: ir.Value | None) -> int | None:
    found = integers(piece)
    return found[0] if found is not None and len(found) == 1 and found[0] != -1 else None
