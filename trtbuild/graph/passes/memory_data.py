"""Constant nodes as initialisers, and operands of equal values as scalars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.graph.constants import constant_tensor
from trtbuild.graph.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.graph.editor import Editor

__all__ = ["FuseMemoryDataBinaryOp"]


class FuseMemoryDataBinaryOp(Pass):
    """Make Constant nodes initialisers.

    Pattern: a Constant node.
    Conditions: not a graph output; it holds a dense tensor.
    Effect: an initialiser of the same graph.
    Source: NCNN ``fuse_memorydata_binaryop``; ONNX's binary operators have no scalar attribute.
    """

    name = "fuse_memorydata_binaryop"
    anchors = frozenset({"Constant"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Lift the Constant."""
        output = node.outputs[0]
        tensor = constant_tensor(output)
        if tensor is None or output.is_graph_output():
            return None
        value = edit.initializer(tensor, near=node, hint=output.name or "constant")
        edit.forward(output, value)
        edit.drop(node)
        return "became an initialiser"
