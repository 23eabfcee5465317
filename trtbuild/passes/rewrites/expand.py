"""Expands that make nothing larger, or that the operator behind them makes superfluous."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import integers
from trtbuild.model.operators import BROADCASTING
from trtbuild.model.shapes import Dims, broadcast, dims, keeps_shape, same_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["RemoveExpandBeforeBinary", "RemoveNoopExpand"]


class RemoveNoopExpand(Pass):
    """Remove an Expand that makes nothing larger.

    Pattern: Expand to the shape that the tensor has, to ones, or to its own Shape.
    Conditions: the target has no more dims than the tensor; a symbolic dim may be 1, so a literal in
        its place stays.
    Effect: readers read the input.
    Source: ONNX Runtime ``Expand Elimination``.
    """

    name = "remove_noop_expand"
    anchors = frozenset({"Expand"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it makes nothing larger."""
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
    """Let an operator broadcast by itself instead of expanding its operand first.

    Pattern: ``Expand`` in front of an operator that broadcasts.
    Conditions: the result has the same dims without the Expand.
    Effect: the operator reads the small tensor.
    Source: MNN ``TurnBinaryToElementwise`` makes one form of binary operators; ONNX has one, so the
        nearest task is taken.
    """

    name = "remove_expand_before_binary"
    anchors = BROADCASTING

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Read around each Expand that is not needed."""
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
