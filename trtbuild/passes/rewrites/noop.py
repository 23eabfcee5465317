"""Removes operators that return their input, and Expands that do not enlarge anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from trtbuild.model.attributes import attribute, axes, clip_bounds, input_at, pad_widths
from trtbuild.model.constants import array, integers, single_value
from trtbuild.model.operators import BROADCASTING
from trtbuild.model.shapes import Dims, broadcast, dims, keeps_shape, same_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.reshaping import RESHAPES, keeps_dims

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["RemoveExpandBeforeBinary", "RemoveNoop", "RemoveNoopExpand"]


_NEUTRAL: dict[str, tuple[Any, bool]] = {
    # operator: (constant that changes nothing, whether it may be the left operand)
    "Add": (0, True),
    "And": (True, True),
    "Div": (1, False),
    "Mul": (1, True),
    "Or": (False, True),
    "Pow": (1, False),
    "Sub": (0, False),
}

_REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})
"""Reductions that return a single element as it is; ReduceL1 and others do not."""


class RemoveNoop(Pass):
    """Remove operators whose constants or dims make them return their input.

    Pattern: ``x + 0``, ``x - 0``, ``x * 1``, ``x / 1``, ``x ** 1``; Pad by nothing, Tile by one;
        Reshape, Flatten, Squeeze or Unsqueeze to the present dims; Clip to the whole range of the type; a
        reduction over no axes or over axes of size 1.
    Conditions: constants have exactly that value (1e-9 is not zero) and do not change the dims or rank of the
        result; ``0 - x`` and ``1 / x`` stay.
    Effect: readers read the input.
    Source: NCNN ``eliminate_noop``.
    """

    name = "remove_noop"
    anchors = frozenset({"Clip", "Pad", "Tile", *_NEUTRAL, *_REDUCTIONS, *RESHAPES})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it returns its input."""
        source = _returned(node)
        if source is None:
            return None
        edit.bypass(node, node.outputs[0], source)
        return f"returns '{source.name}'"


def _returned(node: ir.Node) -> ir.Value | None:
    if node.op_type in _NEUTRAL:
        return _neutral_operand(node)
    match node.op_type:
        case "Clip":
            does_nothing = _clips_nothing(node)
        case "Pad":
            widths = pad_widths(node)
            does_nothing = widths is not None and not any(widths)
        case "Tile":
            repeats = integers(input_at(node, 1))
            does_nothing = repeats is not None and all(count == 1 for count in repeats)
        case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze":
            does_nothing = keeps_dims(node)
        case _:
            does_nothing = _reduces_nothing(node)
    return node.inputs[0] if does_nothing else None


def _neutral_operand(node: ir.Node) -> ir.Value | None:
    """Return the other operand if one is the constant that changes nothing."""
    neutral, commutes = _NEUTRAL[node.op_type]
    places = ((0, 1), (1, 0)) if commutes else ((0, 1),)
    for place, other in places:
        value = single_value(node.inputs[other])
        if value is None or value != neutral:
            continue
        source, constant = node.inputs[place], array(node.inputs[other])
        if constant is None or not keeps_shape(dims(source), constant.shape):
            raise Declined("the constant may make the result larger")
        if source is not None and source.dtype != node.outputs[0].dtype:
            return None
        return source
    return None


def _clips_nothing(node: ir.Node) -> bool:
    bounds = clip_bounds(node)
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    if bounds is None or dtype is None:
        return False
    low, high = bounds
    kind = dtype.numpy()
    limits: Any = np.iinfo(kind) if kind.kind in "iu" else ml_dtypes.finfo(kind)
    return low <= float(limits.min) and high >= float(limits.max)


def _reduces_nothing(node: ir.Node) -> bool:
    over = axes(node)
    if over is None:
        return False
    if not over:
        return bool(attribute(node, "noop_with_empty_axes", 0))
    known = dims(node.inputs[0])
    if known is None or not attribute(node, "keepdims", 1):
        return False
    return all(known[axis] == 1 for axis in over)


class RemoveNoopExpand(Pass):
    """Remove an Expand that does not enlarge anything.

    Pattern: Expand to the shape that the tensor has, to ones, or to its own Shape.
    Conditions: the target has no more dims than the tensor; since a symbolic dim may be 1, an Expand with a
        number in its place stays.
    Effect: readers read the input.
    Source: ONNX Runtime ``Expand Elimination``.
    """

    name = "remove_noop_expand"
    anchors = frozenset({"Expand"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it does not enlarge its input."""
        source = node.inputs[0]
        if source is None:
            return None
        if not _keeps(source, node):
            raise Declined("it may make the tensor larger, or of a higher rank")
        edit.bypass(node, node.outputs[0], source)
        return f"expanded '{source.name}' to the shape it has"


def _keeps(source: ir.Value, node: ir.Node) -> bool:
    shape = maker(node.inputs[1], "Shape")
    if shape is not None and shape.inputs[0] is source and not shape.attributes:
        return True
    target = integers(node.inputs[1])
    if target is not None and keeps_shape(dims(source), target):
        return True
    return same_dims(dims(source), dims(node.outputs[0]))


class RemoveExpandBeforeBinary(Pass):
    """Let an operator broadcast its operand instead of an Expand before it.

    Pattern: ``Expand`` before an operator that broadcasts.
    Conditions: the result has the same dims without the Expand.
    Effect: the operator reads the small tensor.
    Source: MNN ``TurnBinaryToElementwise`` gives binary operators one form. ONNX has only one, so this
        pass does what comes nearest.
    """

    name = "remove_expand_before_binary"
    anchors = BROADCASTING
    needs = frozenset({"Expand"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass each Expand that is not needed."""
        done = []
        for place, operand in enumerate(node.inputs):
            expand = maker(operand, "Expand")
            if expand is None or expand.inputs[0] is None:
                continue
            if not _same_without(node, place, expand):
                edit.decline(node, f"Expand '{expand.name}' gives the result its shape")
                continue
            edit.rewire(node, place, expand.inputs[0])
            done.append(expand.name or "")
        return f"broadcasts without {', '.join(done)}" if done else None


def _same_without(node: ir.Node, place: int, expand: ir.Node) -> bool:
    parts = [
        dims(expand.inputs[0] if index == place else operand)
        for index, operand in enumerate(node.inputs)
    ]
    result: Dims | None = ()
    for part in parts:
        result = broadcast(result, part)
    return same_dims(result, dims(node.outputs[0]))
