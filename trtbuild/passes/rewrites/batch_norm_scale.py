"""Constants behind a BatchNormalization that has no layer to go into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import is_inference_batch_norm
from trtbuild.model.constants import array
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.scale_shift import affine_of, split_operands
from trtbuild.passes.weights import rounded

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["FoldScaleShiftIntoBatchNorm"]


class FoldScaleShiftIntoBatchNorm(Pass):
    """Fold constants behind a BatchNormalization into its scale and shift.

    Pattern: ``BatchNormalization -> Mul | Div | Add | Sub`` of a constant.
    Conditions: inference mode; constant scale and shift; a scalar or one value per channel (``[C]``
        lies along the width); nobody else sees the tensor between.
    Effect: ``gamma' = gamma * scale``, ``beta' = beta * scale + shift``.
    Source: NCNN ``fuse_batchnorm_scale``.
    """

    name = "fold_scale_shift_into_batch_norm"
    anchors = frozenset({"Add", "Div", "Mul", "Sub"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the BatchNormalization that feeds it."""
        operands = split_operands(node)
        norm = None if operands is None else maker(operands[0], "BatchNormalization")
        if operands is None or norm is None:
            return None
        require_private(operands[0], node)
        gamma, beta = array(norm.inputs[1]), array(norm.inputs[2])
        ranks = rank(norm.inputs[0]) or rank(norm.outputs[0])
        if not is_inference_batch_norm(norm) or gamma is None or beta is None or ranks is None:
            raise Declined("the BatchNormalization is not constant, or in training mode")
        affine = affine_of(node, ranks, gamma.size)
        factor = np.float64(1.0) if affine.scale is None else affine.scale
        shift = np.float64(0.0) if affine.shift is None else affine.shift
        scales = rounded(gamma.astype(np.float64) * factor, gamma.dtype)
        shifts = rounded(beta.astype(np.float64) * factor + shift, beta.dtype)
        for place, content in ((1, scales), (2, shifts)):
            hint = f"{norm.outputs[0].name}_{'scale' if place == 1 else 'shift'}"
            norm.replace_input_with(place, edit.constant(content, near=norm, hint=hint))
        edit.bypass(node, node.outputs[0], norm.outputs[0])
        return f"folded into BatchNormalization '{norm.name}'"
