"""Replaces Shape and Size of tensors whose dims are known before the network runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute
from trtbuild.model.constants import integers, is_constant
from trtbuild.model.shapes import dims, static_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.reshaping import reshape_target

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["FoldShape"]


class FoldShape(Pass):
    """Replace the Shape of a static tensor by a constant.

    Pattern: Shape or Size; Gather of a Shape at constant indices; a Reshape to a computed shape.
    Conditions: the dims are known numbers; symbolic ones stay. The target of a Reshape may copy symbolic
        dims that its input has in the same place, and leave one to be computed.
    Effect: an initializer, which constant folding continues with.
    Source: MNN ``ResolveTfShapeN``; ONNX has no ShapeN.
    """

    name = "fold_shape"
    anchors = frozenset({"Gather", "Reshape", "Shape", "Size"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`, or the target of a Reshape, by a constant."""
        if node.op_type == "Reshape":
            return _write_target(node, edit)
        content = _gathered(node) if node.op_type == "Gather" else _asked(node)
        if content is None:
            return None
        output = node.outputs[0]
        edit.become_constant(output, content)
        return f"is {content.tolist()}"


def _write_target(node: ir.Node, edit: Editor) -> str | None:
    operand = node.inputs[1]
    if operand is None or attribute(node, "allowzero", 0):
        return None
    if is_constant(operand):
        target = _with_copied_dim(node)
        if target is None:
            return None
    else:
        target = reshape_target(dims(node.inputs[0]), dims(node.outputs[0]))
    if target is None:
        raise Declined("its dims cannot be expressed by constants")
    content = np.array(target, np.int64)
    edit.rewire(node, 1, edit.constant(content, near=node, hint=f"{operand.name}_known"))
    return f"reshapes to {list(target)}"


def _with_copied_dim(node: ir.Node) -> tuple[int, ...] | None:
    """Return the target with 0 instead of -1 if the computed dim must be the symbolic dim in the same place.

    Shape inference keeps track of a copied dim, but not of a computed one.
    """
    source, target = dims(node.inputs[0]), integers(node.inputs[1])
    if source is None or target is None or target.count(-1) != 1:
        return None
    place = target.index(-1)
    if place >= len(source) or isinstance(source[place], int):
        return None
    rest = [dim for axis, dim in enumerate(source) if axis != place]
    if any(axis >= len(source) for axis, dim in enumerate(target) if dim == 0):
        return None
    said = [source[axis] if dim == 0 else dim for axis, dim in enumerate(target) if axis != place]
    have = [dim for dim in rest if isinstance(dim, int)]
    want = [dim for dim in said if isinstance(dim, int)]
    if len(have) < len(rest) or len(want) < len(said) or math.prod(have) != math.prod(want):
        return None
    return None if 0 in have else tuple(0 if dim == -1 else dim for dim in target)


def _asked(node: ir.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    if node.op_type == "Size":
        known = static_dims(node.inputs[0])
        return None if known is None else np.array(math.prod(known), np.int64)
    all_dims = dims(node.inputs[0])
    if all_dims is None:
        raise Declined("not even the rank is known")
    part = all_dims[attribute(node, "start", 0) : attribute(node, "end")]
    if not all(isinstance(dim, int) for dim in part):
        raise Declined(f"the dims {list(part)} are not all known")
    return np.array(part, np.int64)


def _gathered(node: ir.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    shape = maker(node.inputs[0], "Shape")
    places = integers(node.inputs[1])
    if shape is None or places is None or node.inputs[1] is None:
        return None
    all_dims = dims(shape.inputs[0])
    if all_dims is None:
        return None
    part = all_dims[attribute(shape, "start", 0) : attribute(shape, "end")]
    found = [part[place] for place in places if -len(part) <= place < len(part)]
    if len(found) != len(places) or not all(isinstance(dim, int) for dim in found):
        return None
    scalar = node.inputs[1].shape is not None and len(node.inputs[1].shape) == 0
    return np.array(found[0] if scalar else found, np.int64)
