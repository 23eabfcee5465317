"""A graph pass: subtracting a constant becomes adding its negative, which other passes fold into biases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.passes import Editor, Pass, matching

if TYPE_CHECKING:
    import onnx_ir as ir


class WriteSubAsAdd(Pass):
    """Write the subtraction of a constant as an addition.

    Pattern: ``x - c``.
    Conditions: `c` is a constant of floats.
    Effect: ``x + (-c)``, which `fold_bias_add` folds into a convolution in front of it.
    Source: exporters that subtract a constant from a layer's output.
    """

    name = "write_sub_as_add"
    anchors = frozenset({"Sub"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace the subtraction `node`."""
        x, constant = node.inputs
        values = matching.array(constant)
        if x is None or values is None or values.dtype.kind != "f":
            return None
        negative = edit.constant(-values, near=node, hint=f"{node.outputs[0].name}_addend")
        result = edit.add("Add", [x, negative], before=node, like=node.outputs[0])
        edit.replace(node, result, name=node.name)
        return "became Add"
