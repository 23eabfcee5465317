"""Folds Mul, Div, Add and Sub of constants into the layer before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant
from trtbuild.model.operators import CONVOLUTIONS
from trtbuild.model.traversal import maker, sole_node
from trtbuild.passes.affine import Affine, channel_vector, fold_affine, layer_before, layer_channels
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "FoldAddIntoGemm",
    "FoldBiasAdd",
    "FoldScaleIntoConv",
    "FoldScaleShiftIntoConv",
    "FoldSumCoefficients",
    "affine_of",
]


def split_operands(node: ir.Node) -> tuple[ir.Value, ir.Value, bool] | None:
    """Return the computed and the constant operand of a binary node, and whether the constant is first.

    None if both are computed or both constant.
    """
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None or is_constant(left) == is_constant(right):
        return None
    return (right, left, True) if is_constant(left) else (left, right, False)


def affine_of(node: ir.Node, ranks: int, channels: int) -> Affine:
    """Read Add, Sub, Mul or Div of a constant as ``x * scale + shift`` per channel.

    Raises:
        Declined: it is not per channel, the constant is on the left of a Sub or Div, or it divides by zero.
    """
    operands = split_operands(node)
    if operands is None:
        raise Declined("its other operand is not constant")
    _, constant, on_left = operands
    vector = channel_vector(constant, ranks, channels)
    if on_left and node.op_type in ("Div", "Sub"):
        raise Declined(f"the constant is on the left of the {node.op_type}")
    match node.op_type:
        case "Add":
            return Affine(shift=vector)
        case "Sub":
            return Affine(shift=-vector)
        case "Mul":
            return Affine(scale=vector)
        case _:
            if not vector.all():
                raise Declined("it divides by zero")
            return Affine(scale=1.0 / vector)


def _fold(node: ir.Node, edit: Editor, layers: Collection[str]) -> str | None:
    """Fold one binary node into the layer that feeds it."""
    feeding = [maker(value, *layers) for value in node.inputs]
    if not any(feeding):
        return None
    operands = split_operands(node)
    if operands is None:
        raise Declined("its other operand is not constant")
    layer = layer_before(operands[0], node, layers)
    if layer is None:
        return None
    fold_affine(layer, affine_of(node, *layer_channels(layer)), edit)
    edit.bypass(node, node.outputs[0], layer.outputs[0])
    return f"folded into {layer.op_type} '{layer.name}'"


class FoldBiasAdd(Pass):
    """Fold a constant that is added after a convolution into its bias.

    Pattern: ``Conv | ConvTranspose -> Add | Sub`` of a constant, on either side of the Add.
    Conditions: the constant is a scalar or has one value per channel by right-aligned
        broadcasting (``[C]`` lies along the width), and does not make the result larger; the bias is
        constant or absent; the convolution's output has no other reader.
    Effect: ``b' = b + c``.
    Source: MNN ``ConvBiasAdd``.
    """

    name = "fold_bias_add"
    anchors = frozenset({"Add", "Sub"})
    needs = CONVOLUTIONS

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the convolution that feeds it."""
        return _fold(node, edit, CONVOLUTIONS)


class FoldScaleIntoConv(Pass):
    """Fold a constant factor after a convolution into its weights.

    Pattern: ``Conv | ConvTranspose -> Mul | Div`` by a constant.
    Conditions: as for fold_bias_add; weights are constant; ``c / Conv`` stays.
    Effect: ``W' = W * c``, ``b' = b * c``.
    Source: ONNX Runtime ``Conv Mul Fusion``.
    """

    name = "fold_scale_into_conv"
    anchors = frozenset({"Div", "Mul"})
    needs = CONVOLUTIONS

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the convolution that feeds it."""
        return _fold(node, edit, CONVOLUTIONS)


class FoldScaleShiftIntoConv(Pass):
    """Fold a Mul and an Add per channel (a Scale layer) into the convolution before them.

    Pattern: ``Conv | ConvTranspose -> Mul -> Add`` of constants.
    Conditions: as for fold_bias_add and fold_scale_into_conv, for both.
    Effect: ``W' = W * scale``, ``b' = b * scale + shift``.
    Source: MNN ``MergeScaleToConvolution``.
    """

    name = "fold_scale_shift_into_conv"
    anchors = frozenset({"Mul"})
    needs = CONVOLUTIONS

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` and the Add after it."""
        operands = split_operands(node)
        layer = None if operands is None else maker(operands[0], *CONVOLUTIONS)
        shift = sole_node(node.outputs[0], "Add")
        if operands is None or layer is None or shift is None or split_operands(shift) is None:
            return None
        require_private(operands[0], node)
        ranks, channels = layer_channels(layer)
        both = Affine(
            scale=affine_of(node, ranks, channels).scale,
            shift=affine_of(shift, ranks, channels).shift,
        )
        fold_affine(layer, both, edit)
        edit.bypass(shift, shift.outputs[0], layer.outputs[0])
        return f"folded with '{shift.name}' into {layer.op_type} '{layer.name}'"


class FoldSumCoefficients(Pass):
    """Fold the coefficients of a weighted sum of convolutions into the convolutions.

    Pattern: ``Conv * c1 + Conv * c2``.
    Conditions: as for fold_scale_into_conv, for each term; a computed or spatial coefficient stays. ONNX
        has no weighted Sum.
    Effect: the plain sum of the convolutions.
    Source: NCNN ``fuse_binaryop_eltwise``.
    """

    name = "fold_sum_coefficients"
    anchors = frozenset({"Add", "Sub", "Sum"})
    needs = CONVOLUTIONS

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold the factor of each term of `node`."""
        terms = [maker(value, "Mul") for value in node.inputs]
        if len(terms) < 2 or any(term is None for term in terms):
            return None
        folded = []
        for term in terms:
            try:
                folded.append(_fold(term, edit, CONVOLUTIONS) if term is not None else None)
            except Declined as verdict:
                edit.decline(node, str(verdict))
        return "; ".join(what for what in folded if what is not None) or None


class FoldAddIntoGemm(Pass):
    """Fold a constant row that is added after a Gemm into its C.

    Pattern: ``Gemm -> Add | Sub`` of a constant.
    Conditions: a scalar or one value per column, which neither adds rows nor raises the rank; C is a
        constant row or absent.
    Effect: ``C' = beta * C + c``.
    Source: NCNN ``fuse_innerproduct_add``.
    """

    name = "fold_add_into_gemm"
    anchors = frozenset({"Add", "Sub"})
    needs = frozenset({"Gemm"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the Gemm that feeds it."""
        return _fold(node, edit, ("Gemm",))
