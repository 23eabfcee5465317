"""Quantized convolutions over sequences, run as convolutions over images of height 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, axes, normal_axis
from trtbuild.model.constants import array, is_constant
from trtbuild.model.operators import QDQ, UNARY
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import label, maker, sole_node
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.scale_shift import split_operands

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertQuantizedConv1dToConv2d", "SinkSqueezeBelowQdq"]

_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})


class SinkSqueezeBelowQdq(Pass):
    """Move the Squeeze after a convolution past its activation and quantization.

    Pattern: ``Conv -> Squeeze ->`` elementwise operators with constants, Q and DQ.
    Conditions: constant axes; no tensor between has another reader. Constants that broadcast against the
        squeezed tensor get the axis back; so does the axis of per-channel scales.
    Effect: ``Conv -> activation -> Q`` are neighbours, and the Squeeze meets the next Unsqueeze.
    Source: MNN ``Conv1dQuantToConv2dQuant``.
    """

    name = "sink_squeeze_below_qdq"
    anchors = UNARY | _ARITHMETIC | QDQ
    needs = frozenset({"Squeeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Move the Squeeze from before `node` to after it."""
        place = _squeezed_operand(node)
        squeeze = None if place is None else maker(node.inputs[place], "Squeeze")
        if place is None or squeeze is None or squeeze.inputs[0] is None:
            return None
        if not _from_convolution(squeeze.inputs[0]):
            return None
        count, written = rank(squeeze.inputs[0]), axes(squeeze)
        if count is None or not written:
            raise Declined("the axes of the Squeeze are not known")
        require_private(squeeze.outputs[0], node)
        gone = sorted({normal_axis(axis, count) for axis in written})
        if node.op_type in QDQ:
            _move_axis(node, gone, count, edit)
        elif node.op_type in _ARITHMETIC:
            _widen_constant(node, 1 - place, gone, count, edit)
        edit.rewire(node, place, squeeze.inputs[0])
        edit.squeeze_behind(node, gone)
        return "runs in front of the Squeeze"


def _squeezed_operand(node: ir.Node) -> int | None:
    if node.op_type not in _ARITHMETIC:
        return 0
    if split_operands(node) is None:
        return None
    return 1 if is_constant(node.inputs[0]) else 0


def _from_convolution(value: ir.Value) -> bool:
    """Whether a convolution made `value`, with elementwise operators and Q/DQ after it."""
    node = value.producer()
    while node is not None and node.op_type not in ("Conv", "ConvTranspose"):
        if node.op_type not in UNARY | _ARITHMETIC | QDQ:
            return False
        place = _squeezed_operand(node)
        operand = None if place is None else node.inputs[place]
        node = None if operand is None else operand.producer()
    return node is not None


def _widened(axis: int, gone: list[int]) -> int:
    """Return which axis before the Squeeze an axis of the squeezed tensor is."""
    for place in gone:
        if place <= axis:
            axis += 1
    return axis


def _move_axis(node: ir.Node, gone: list[int], count: int, edit: Editor) -> None:
    if attribute(node, "block_size", 0):
        raise Declined("it is scaled in blocks")
    scale = array(node.inputs[1])
    if rank(node.inputs[1]) == 0 or (scale is not None and scale.size == 1):
        return
    if scale is None:
        raise Declined("its scale may lie along an axis")
    axis = normal_axis(int(attribute(node, "axis", 1)), count - len(gone))
    edit.set_attribute(node, "axis", _widened(axis, gone))


def _widen_constant(node: ir.Node, place: int, gone: list[int], count: int, edit: Editor) -> None:
    operand = node.inputs[place]
    content = array(operand)
    if content is None or operand is None:
        raise Declined("its other operand is not constant")
    if content.ndim > count - len(gone):
        raise Declined("its constant raises the rank")
    if content.size == 1:
        return
    padded = content.reshape((1,) * (count - len(gone) - content.ndim) + content.shape)
    wide = np.expand_dims(padded, tuple(gone))
    node.replace_input_with(place, edit.constant(wide, near=node, hint=operand.name or "constant"))


class ConvertQuantizedConv1dToConv2d(Pass):
    """Write a quantized convolution over a sequence as one over an image of height 1.

    Pattern: ``DequantizeLinear -> Conv`` of rank 3 with quantized weights.
    Conditions: constant weights read through a DequantizeLinear with axis 0 or with one scale.
    Effect: Unsqueeze ``[N, C, L] -> [N, C, 1, L]`` before the quantization, Conv2d, and Squeeze after.
    Source: MNN ``Conv1dQuantToConv2dQuant``.
    """

    name = "convert_quantized_conv1d_to_conv2d"
    opt_in = True
    anchors = frozenset({"Conv"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Widen `node`."""
        feeding = maker(node.inputs[0], "DequantizeLinear")
        weights = maker(node.inputs[1], "DequantizeLinear")
        if feeding is None or weights is None or rank(node.inputs[1]) != 3:
            return None
        content = array(weights.inputs[0])
        if content is None or (attribute(weights, "axis", 1) != 0 and not _one_scale(weights)):
            raise Declined("its weights are not constant, or scaled along another axis")
        wide = edit.constant(content[:, :, None, :], near=node, hint=f"{label(node)}_weight")
        settings = {"axis": 0 if edit.opset >= 13 else None}
        operands = [wide, *weights.inputs[1:]]
        edit.rewire(node, 1, edit.add("DequantizeLinear", operands, settings, before=node))
        _widen_input(node, feeding, edit)
        for key, neutral in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
            if key in node.attributes:
                edit.set_attribute(node, key, [neutral, *attribute(node, key)])
        pads = attribute(node, "pads")
        if pads is not None:
            edit.set_attribute(node, "pads", [0, pads[0], 0, pads[1]])
        edit.squeeze_behind(node, [2])
        return "became a Conv2d of height 1"


def _one_scale(node: ir.Node) -> bool:
    scale = array(node.inputs[1])
    return scale is not None and scale.size == 1


def _widen_input(node: ir.Node, feeding: ir.Node, edit: Editor) -> None:
    """Insert the Unsqueeze before the quantization if that has no other reader, else after it."""
    quantize = maker(feeding.inputs[0], "QuantizeLinear")
    alone = sole_node(feeding.outputs[0], "Conv") is node
    if (
        quantize is not None
        and quantize.inputs[0] is not None
        and alone
        and sole_node(quantize.outputs[0], "DequantizeLinear") is feeding
        and _one_scale(quantize)
        and _one_scale(feeding)
    ):
        wide = edit.add_with_axes("Unsqueeze", quantize.inputs[0], [2], before=quantize)
        quantize.replace_input_with(0, wide)
        for item in (quantize, feeding):
            item.outputs[0].shape = None
            edit.infer(item)
        return
    value = node.inputs[0]
    if value is not None:
        node.replace_input_with(0, edit.add_with_axes("Unsqueeze", value, [2], before=node))
