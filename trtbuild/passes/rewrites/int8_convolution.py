"""Convolutions that are (almost) quantized: folds BN, quantizes weights, converts QLinearConv."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import input_at
from trtbuild.model.constants import array
from trtbuild.model.operators import CONVOLUTIONS
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import label, maker, sole_node
from trtbuild.passes.affine import layer_before
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.batch_norm import fold_into
from trtbuild.passes.symmetric_weights import quantize_rows

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "ConvertQlinearConvToQdq",
    "FoldBatchNormIntoInt8Conv",
    "QuantizeConvWeights",
]


class FoldBatchNormIntoInt8Conv(Pass):
    """Fold BatchNormalization after a convolution with int8 weights into their scales.

    Pattern: ``DequantizeLinear(int8 W) -> Conv -> BatchNormalization``.
    Conditions: the convolution's output has no other reader, and no Q/DQ after it; another layer that
        shares the weights keeps them.
    Effect: the integers stay, except the sign in channels with a negative factor; the scales take the
        factor and stay positive; the bias takes the shift. ``DQ -> Conv -> Relu -> Q`` becomes
        contiguous.
    Source: MNN ``ConvBNReluFuseToConvInt8``.
    """

    name = "fold_batch_norm_into_int8_conv"
    anchors = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` into the quantized convolution that feeds it."""
        layer = maker(node.inputs[0], *CONVOLUTIONS)
        if layer is None or maker(layer.inputs[1], "DequantizeLinear") is None:
            return None
        layer_before(node.inputs[0], node, CONVOLUTIONS)
        fold_into(layer, node, edit)
        return f"folded into the scales of {layer.op_type} '{layer.name}'"


class QuantizeConvWeights(Pass):
    """Quantize the float weights of a convolution whose input and output are quantized.

    Pattern: ``DequantizeLinear -> Conv(float W) (-> activation) -> QuantizeLinear``.
    Conditions: constant weights; opset 13 or newer (19 for float16). Changes numbers: on
        request.
    Effect: int8 weights with one symmetric scale per output channel and a DequantizeLinear.
    Source: MNN ``ConvBNReluFuseToConvInt8``.
    """

    name = "quantize_conv_weights"
    opt_in = True
    exact = False
    anchors = frozenset({"Conv"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Give `node` int8 weights."""
        if maker(node.inputs[0], "DequantizeLinear") is None or not _meets_quantizer(node):
            return None
        weight = node.inputs[1]
        content = array(weight)
        if content is None or weight is None or content.dtype.kind != "f":
            raise Declined("its weights are not constant floats")
        node.replace_input_with(1, quantize_rows(content, 0, weight.name or "weight", node, edit))
        return "has int8 weights"


def _meets_quantizer(node: ir.Node) -> bool:
    """Whether the output of `node` is quantized, with at most one operator in between."""
    users = node.outputs[0].consumers()
    if any(user.op_type == "QuantizeLinear" for user in users):
        return True
    following = users[0] if len(users) == 1 else None
    return following is not None and any(
        sole_node(output, "QuantizeLinear") is not None for output in following.outputs
    )


class ConvertQlinearConvToQdq(Pass):
    """Write QLinearConv in the Q/DQ form that TensorRT reads.

    Pattern: QLinearConv.
    Conditions: if there is a bias, the scales of input and weights are constant, since their product is the
        bias' scale; opset 13 or newer for weights with per-channel scales.
    Effect: ``DequantizeLinear -> Conv -> QuantizeLinear`` with a float bias.
    Source: MNN ``ConvBNReluFuseToConvInt8``; TensorRT's parser reads Q/DQ only.
    """

    name = "convert_qlinear_conv_to_qdq"
    opt_in = True
    anchors = frozenset({"QLinearConv"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node` by DequantizeLinears, a Conv and a QuantizeLinear."""
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
        if edit.opset < 13 and rank(w_scale) != 0:
            raise Declined("scales per channel came with opset 13")
        bias = input_at(node, 8)
        addend = [] if bias is None else [_float_bias(node, bias, edit)]
        operands = [
            edit.add("DequantizeLinear", [x, x_scale, x_zero], before=node),
            edit.add(
                "DequantizeLinear",
                [w, w_scale, w_zero],
                {"axis": 0} if edit.opset >= 13 else None,
                before=node,
            ),
        ]
        attributes = {key: item.value for key, item in node.attributes.items()}
        result = edit.add("Conv", [*operands, *addend], attributes, before=node)
        output = edit.add(
            "QuantizeLinear", [result, y_scale, y_zero], before=node, like=node.outputs[0]
        )
        edit.replace(node, output)
        return "became DQ -> Conv -> Q"


def _float_bias(node: ir.Node, bias: ir.Value, edit: Editor) -> ir.Value:
    content, x_scale, w_scale = (array(value) for value in (bias, node.inputs[1], node.inputs[4]))
    if content is None or x_scale is None or w_scale is None:
        raise Declined("bias or scales are not constant")
    steps = x_scale.astype(np.float64).reshape(-1) * w_scale.astype(np.float64).reshape(-1)
    value = (content.astype(np.float64) * steps).astype(x_scale.dtype)
    return edit.constant(value, near=node, hint=f"{label(node)}_bias")
