"""BatchNormalization written out, for engines without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.shapes import rank
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.batch_norm import batch_norm_affine
from trtbuild.passes.weights import rounded

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertBatchNormToMulAdd"]


class ConvertBatchNormToMulAdd(Pass):
    """Write a BatchNormalization that stands alone as Mul and Add.

    Pattern: BatchNormalization that no layer took in.
    Conditions: inference mode, constant statistics, known rank. Changes the form: on request.
    Effect: ``x * scale + shift`` with ``[C, 1, ..]`` constants.
    Source: MNN ``TransformBatchNormal``.
    """

    name = "convert_batch_norm_to_mul_add"
    opt_in = True
    anchors = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        affine = batch_norm_affine(node)
        source, output = node.inputs[0], node.outputs[0]
        count = rank(source)
        if source is None or source.dtype is None or count is None:
            raise Declined("its rank is not known")
        assert affine.scale is not None and affine.shift is not None, "a BN has both"  # noqa: PT018
        value: ir.Value = source
        for op_type, vector in (("Mul", affine.scale), ("Add", affine.shift)):
            content = rounded(vector, source.dtype.numpy()).reshape(-1, *(1,) * max(0, count - 2))
            operand = edit.constant(content, near=node, hint=f"{label(node)}_{op_type.lower()}")
            value = edit.add(op_type, [value, operand], before=node, like=output)
        edit.replace(node, value)
        return "became Mul and Add"
