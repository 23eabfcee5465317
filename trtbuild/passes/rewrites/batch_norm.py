"""BatchNormalization behind a layer with constant weights, folded into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, is_inference_batch_norm
from trtbuild.model.constants import array
from trtbuild.passes.affine import Affine, fold_affine, layer_before, layer_channels
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["FoldBatchNormIntoConv", "FoldBatchNormIntoGemm", "batch_norm_affine"]


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


def _fold(node: ir.Node, layer: ir.Node | None, edit: Editor) -> str | None:
    if layer is None:
        return None
    affine = batch_norm_affine(node)
    _, channels = layer_channels(layer)
    if affine.scale is None or affine.scale.size != channels:
        raise Declined("it does not have one statistic for each channel")
    fold_affine(layer, affine, edit)
    edit.bypass(node, node.outputs[0], layer.outputs[0])
    return f"folded into {layer.op_type} '{layer.name}'"


class FoldBatchNormIntoConv(Pass):
    """Fold BatchNormalization into the convolution in front of it.

    Pattern: ``Conv | ConvTranspose -> BatchNormalization``, any rank, any groups.
    Conditions: inference mode; constant weights, bias and statistics; nobody else sees the
        convolution's output. BN in front of a padded Conv is another matter and stays.
    Effect: ``W' = W * scale``, ``b' = b * scale + shift`` in the type of the weights; int8 weights
        behind a DequantizeLinear keep their integers and take the factor in their scales.
    Source: MNN ``MergeBNToConvolution``; Jacob et al. 2018, section 3.2.
    """

    name = "fold_batch_norm_into_conv"
    anchors = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the convolution that feeds it."""
        return _fold(node, layer_before(node.inputs[0], node, ("Conv", "ConvTranspose")), edit)


class FoldBatchNormIntoGemm(Pass):
    """Fold BatchNormalization into the matrix product in front of it.

    Pattern: ``Gemm -> BatchNormalization`` (transB, alpha, beta, scalar or row C).
    Conditions: as for convolutions; C is a row. Behind a MatMul of rank 3 the channel axis is
        another one: stays.
    Effect: ``B' = B * scale``, ``C' = beta * C * scale + shift``.
    Source: NCNN ``fuse_innerproduct_batchnorm``.
    """

    name = "fold_batch_norm_into_gemm"
    anchors = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the Gemm that feeds it."""
        return _fold(node, layer_before(node.inputs[0], node, ("Gemm",)), edit)
