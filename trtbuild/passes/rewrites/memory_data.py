"""Constant nodes as initialisers, and operands of equal values as scalars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import constant_tensor, is_constant, single_value
from trtbuild.model.operators import BROADCASTING
from trtbuild.model.shapes import broadcast, dims, same_dims
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["SimplifyConstants"]


class SimplifyConstants(Pass):
    """Make Constant nodes initialisers, and operands of equal values scalars.

    Pattern: a Constant node; a constant operand, of an operator that broadcasts, whose elements are
        all equal.
    Conditions: not a graph output; the elements are equal bit for bit, and the result has the same
        dims with a scalar.
    Effect: an initialiser of the same graph; a scalar for that operator, other readers keep the tensor.
    Source: NCNN ``fuse_memorydata_binaryop``; ONNX's binary operators have no scalar attribute.
    """

    name = "simplify_constants"
    anchors = BROADCASTING | {"Constant"}

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Lift a Constant, or shrink the operands of an operator that broadcasts."""
        if node.op_type == "Constant":
            return _lift(node, edit)
        shrunk = [place for place in range(len(node.inputs)) if _shrink(node, place, edit)]
        return f"operand {', '.join(map(str, shrunk))} became a scalar" if shrunk else None


def _lift(node: ir.Node, edit: Editor) -> str | None:
    output = node.outputs[0]
    tensor = constant_tensor(output)
    if tensor is None or output.is_graph_output():
        return None
    value = edit.initializer(tensor, near=node, hint=output.name or "constant")
    edit.forward(output, value)
    edit.drop(node)
    return "became an initialiser"


def _shrink(node: ir.Node, place: int, edit: Editor) -> bool:
    operand = node.inputs[place]
    tensor = constant_tensor(operand)
    if tensor is None or operand is None or tensor.size < 2:
        return False
    if all(is_constant(other) for other in node.inputs):
        return False
    parts = [() if index == place else dims(other) for index, other in enumerate(node.inputs)]
    result = parts[0]
    for part in parts[1:]:
        result = broadcast(result, part)
    if not same_dims(result, dims(node.outputs[0])):
        return False
    value = single_value(operand)
    if value is None:
        return False
    scalar = edit.constant(np.asarray(value), near=node, hint=operand.name or "scalar")
    node.replace_input_with(place, scalar)
    return True
