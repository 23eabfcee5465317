"""Makes names unique, removes unread values, and gives constants one form, for all later passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import constant_tensor, is_constant, single_value
from trtbuild.model.edits import drop_unread_initializers, is_read
from trtbuild.model.names import rename_clashes
from trtbuild.model.operators import BROADCASTING
from trtbuild.model.shapes import broadcast, dims, same_dims
from trtbuild.model.traversal import bodies
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["MakeNamesUnique", "RemoveUnread", "SimplifyConstants"]


class MakeNamesUnique(Pass):
    """Give every tensor a unique name.

    Pattern: one name for two tensors, in sibling bodies, or in a body and the graph around it.
    Conditions: names of inputs and outputs stay.
    Effect: the later tensor gets a number behind its name, so that inlining and moving nodes is safe.
    Source: MNN ``RemoveInplace``; ONNX is in single assignment form, so nothing is in place.
    """

    name = "make_names_unique"

    def run(self, edit: Editor) -> None:
        """Rename tensors whose names clash."""
        for old, new in rename_clashes(edit.model, edit.names):
            edit.note(old, "tensor", f"is called '{new}' now")


class RemoveUnread(Pass):
    """Remove initializers, constants and branches that nothing reads.

    Pattern: a node none of whose outputs is read; an initializer without reader.
    Conditions: no graph output; no graph input (overridable initializers included); bodies of If,
        Loop and Scan count as readers.
    Effect: it is removed, and so is all that only it needed.
    Source: NCNN ``eliminate_orphaned_memorydata``; dead code elimination.
    """

    name = "remove_unread"

    def run(self, edit: Editor) -> None:
        """Walk each graph from its end to its start, then check the initializers."""
        self._remove_nodes(edit.model.graph, edit)
        for name in drop_unread_initializers(edit.model):
            edit.note(name, "initializer", "nothing reads it")

    def _remove_nodes(self, graph: ir.Graph, edit: Editor) -> None:
        for node in reversed(graph):
            if node.graph is None:
                continue
            if is_read(node):
                for body in bodies(node):
                    self._remove_nodes(body, edit)
            else:
                edit.report(node, "nothing reads it")
                edit.drop(node)


class SimplifyConstants(Pass):
    """Turn Constant nodes into initializers, and operands of equal values into scalars.

    Pattern: a Constant node; a constant operand of a broadcasting operator whose elements are
        all equal.
    Conditions: not a graph output; the elements are equal bit for bit, and the result has the same
        dims with a scalar.
    Effect: an initializer of the same graph; a scalar for that operator, while other readers keep the tensor.
    Source: NCNN ``fuse_memorydata_binaryop``; ONNX's binary operators have no scalar attribute.
    """

    name = "simplify_constants"
    anchors = BROADCASTING | {"Constant"}

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Lift a Constant, or shrink the operands of a broadcasting operator."""
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
    return "became an initializer"


def _shrink(node: ir.Node, place: int, edit: Editor) -> bool:
    operand = node.inputs[place]
    value = single_value(operand)
    tensor = constant_tensor(operand)
    if value is None or tensor is None or operand is None or tensor.size == 1:
        return False
    if all(is_constant(other) for other in node.inputs):
        return False
    parts = [() if index == place else dims(other) for index, other in enumerate(node.inputs)]
    result = parts[0]
    for part in parts[1:]:
        result = broadcast(result, part)
    if not same_dims(result, dims(node.outputs[0])):
        return False
    scalar = edit.constant(np.asarray(value), near=node, hint=operand.name or "scalar")
    node.replace_input_with(place, scalar)
    return True
