"""Rewrites operators that ONNX can write in two forms into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertSumToAdd"]


class ConvertSumToAdd(Pass):
    """Write the Sum of two tensors as Add.

    Pattern: Sum of two operands.
    Conditions: exactly two; Mean, which divides, and Sums of more operands stay.
    Effect: Add, the only form that later passes look for.
    Source: MNN ``ConvertBinaryToElementwise`` goes the other way, to Eltwise.
    """

    name = "convert_sum_to_add"
    anchors = frozenset({"Sum"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node` by an Add."""
        if len(node.inputs) != 2:
            return None
        result = edit.add("Add", node.inputs, before=node, like=node.outputs[0])
        edit.replace(node, result, name=node.name)
        return "became Add"
