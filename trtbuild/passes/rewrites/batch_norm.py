"""Folds BatchNormalization into a layer with constant weights, folds constants into it, or expands it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, is_inference_batch_norm
from trtbuild.model.constants import array
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import label, maker
from trtbuild.passes.affine import Affine, fold_affine, layer_before, layer_channels
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.scale_shift import affine_of, split_operands
from trtbuild.passes.weights import rounded

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "ConvertBatchNormToMulAdd",
    "FoldBatchNormIntoConv",
    "FoldBatchNormIntoGemm",
    "FoldScaleShiftIntoBatchNorm",
    "batch_norm_affine",
    "fold_into",
]


def batch_norm_affine(node: ir.Node) -> Affine:
    """Read ``gamma * (x - mean) / sqrt(var + epsilon) + beta`` as ``x * scale + shift``.

    Raises:
        Declined: it is in training mode, or its statistics are not constant.
    """
    if not is_inference_batch_norm(node):
        raise Declined("it is in training mode")
    parts = [array(operand) for operand in node.inputs[1:5]]
    if any(part is None for part in parts):
        raise Declined("its scale, shift or statistics are not constant")
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    return Affine(scale, beta - mean * scale)


def fold_into(layer: ir.Node, node: ir.Node, edit: Editor) -> None:
    """Fold a BatchNormalization into the layer before it, and drop it.

    Raises:
        Declined: it is not constant, or its statistics do not fit the layer's channels.
    """
    affine = batch_norm_affine(node)
    _, channels = layer_channels(layer)
    if affine.scale is None or affine.scale.size != channels:
        raise Declined("it does not have one statistic for each channel")
    fold_affine(layer, affine, edit)
    edit.bypass(node, node.outputs[0], layer.outputs[0])


def _fold(node: ir.Node, layer: ir.Node | None, edit: Editor) -> str | None:
    if layer is None:
        return None
    fold_into(layer, node, edit)
    return f"folded into {layer.op_type} '{layer.name}'"


class FoldBatchNormIntoConv(Pass):
    """Fold BatchNormalization into the convolution before it.

    Pattern: ``Conv | ConvTranspose -> BatchNormalization``, any rank, any groups.
    Conditions: inference mode; constant weights, bias and statistics; the convolution's output has no
        other reader. A BN before a padded Conv cannot be folded and stays.
    Effect: ``W' = W * scale``, ``b' = b * scale + shift`` in the type of the weights; int8 weights
        with a DequantizeLinear keep their integers, and their scales take the factor.
    Source: MNN ``MergeBNToConvolution``; Jacob et al. 2018, section 3.2.
    """

    name = "fold_batch_norm_into_conv"
    anchors = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the convolution that feeds it."""
        return _fold(node, layer_before(node.inputs[0], node, ("Conv", "ConvTranspose")), edit)


class FoldBatchNormIntoGemm(Pass):
    """Fold BatchNormalization into the matrix product before it.

    Pattern: ``Gemm -> BatchNormalization`` (transB, alpha, beta, scalar or row C).
    Conditions: as for convolutions; C is a row. After a MatMul of rank 3 the channels are on another
        axis: not folded.
    Effect: ``B' = B * scale``, ``C' = beta * C * scale + shift``.
    Source: NCNN ``fuse_innerproduct_batchnorm``.
    """

    name = "fold_batch_norm_into_gemm"
    anchors = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the Gemm that feeds it."""
        return _fold(node, layer_before(node.inputs[0], node, ("Gemm",)), edit)


class FoldScaleShiftIntoBatchNorm(Pass):
    """Fold a constant Mul, Div, Add or Sub after a BatchNormalization into its scale and shift.

    Pattern: ``BatchNormalization -> Mul | Div | Add | Sub`` of a constant.
    Conditions: inference mode; constant scale and shift; a scalar or one value per channel (``[C]``
        lies along the width); the tensor between has no other reader.
    Effect: ``gamma' = gamma * scale``, ``beta' = beta * scale + shift``.
    Source: NCNN ``fuse_batchnorm_scale``.
    """

    name = "fold_scale_shift_into_batch_norm"
    anchors = frozenset({"Add", "Div", "Mul", "Sub"})
    needs = frozenset({"BatchNormalization"})

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


class ConvertBatchNormToMulAdd(Pass):
    """Write a BatchNormalization that could not be folded as Mul and Add.

    Pattern: BatchNormalization.
    Conditions: inference mode, constant statistics, known rank. Changes the form of the graph: on request.
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
