"""Converts Q/DQ of other tools to the form that TensorRT reads.

TensorRT needs float biases, symmetric int8 activations (zero point 0), and explicit axes.
ONNX Runtime's tools write int32 biases with a DequantizeLinear, and uint8 activations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import CONVOLUTIONS, QDQ
from trtbuild.model.qdq import dequantized
from trtbuild.model.traversal import label, maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["DequantizeBias", "MakeQdqSigned", "MakeQdqSymmetric", "WriteQdqAxis"]

_MIDDLE = 128
"""The uint8 zero point that corresponds to int8 with 0: ``u - 128``."""


class DequantizeBias(Pass):
    """Write an int32 bias and its DequantizeLinear as a float bias.

    Pattern: ``DequantizeLinear(int32) -> bias`` of Conv, ConvTranspose or Gemm.
    Conditions: the integers and their scale are constant.
    Effect: ``bias * scale`` as an initializer; TensorRT does not dequantize int32.
    Source: TensorRT's rules for explicit quantization.
    """

    name = "dequantize_bias"
    anchors = CONVOLUTIONS | {"Gemm"}
    needs = frozenset({"DequantizeLinear"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Give `node` a float bias."""
        bias = input_at(node, 2)
        dequantize = maker(bias, "DequantizeLinear")
        if bias is None or dequantize is None or dequantize.inputs[0] is None:
            return None
        if dequantize.inputs[0].dtype != ir.DataType.INT32:
            return None
        content = dequantized(bias)
        if content is None:
            raise Declined("its quantized bias is not constant")
        edit.rewire(node, 2, edit.constant(content, near=node, hint=f"{label(node)}_bias"))
        return "has a float bias"


class WriteQdqAxis(Pass):
    """Write the axis of per-channel scales where it is omitted.

    Pattern: QuantizeLinear or DequantizeLinear with several scales and no axis.
    Conditions: opset 13 or newer.
    Effect: ``axis = 1``, the default.
    Source: ONNX QuantizeLinear-13; TensorRT's rules for explicit quantization.
    """

    name = "write_qdq_axis"
    anchors = QDQ

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Write the axis of `node`."""
        scale = constant_tensor(node.inputs[1])
        if scale is None or scale.size < 2 or "axis" in node.attributes or edit.opset < 13:
            return None
        edit.set_attribute(node, "axis", 1)
        return "works along axis 1"


class MakeQdqSigned(Pass):
    """Convert uint8 with zero point 128 to int8 with zero point 0.

    Pattern: QuantizeLinear to uint8 with zero point 128 and its DequantizeLinears; uint8 constants
        that a DequantizeLinear reads with zero point 128.
    Conditions: the zero points are constant and all 128; nothing else reads the integers. Other zero
        points are asymmetric and need `make_qdq_symmetric`.
    Effect: exactly the same values, as int8 with zero point 0.
    Source: TensorRT's rules for explicit quantization.
    """

    name = "make_qdq_signed"
    anchors = QDQ

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Shift the integers of `node` and of all that read them."""
        zero = array(input_at(node, 2))
        if zero is None or zero.dtype != np.uint8:
            return None
        if not (zero == _MIDDLE).all():
            raise Declined("its zero point is not 128; enable 'make_qdq_symmetric' to requantize")
        group = _group(node)
        shifted = np.zeros(zero.shape, np.int8)
        if node.op_type == "DequantizeLinear":
            content = array(node.inputs[0])
            if content is None:
                return None  # it is converted with its QuantizeLinear
            signed = (content.astype(np.int16) - _MIDDLE).astype(np.int8)
            edit.rewire(node, 0, edit.constant(signed, near=node, hint=f"{label(node)}_int8"))
        _set_zero(group, shifted, edit)
        return "is int8 around 0"


class MakeQdqSymmetric(Pass):
    """Requantize asymmetric integers symmetrically.

    Pattern: QuantizeLinear with a zero point that is not in the middle, and its DequantizeLinears;
        constants that a DequantizeLinear reads with such a zero point.
    Conditions: constant scales and zero points of 8 bits; nothing else reads the integers. Changes
        numbers, since up to half of the steps may be unused: on request.
    Effect: int8 with zero point 0 and ``scale = max(|low|, |high|) / 127``.
    Source: TensorRT's rules for explicit quantization.
    """

    name = "make_qdq_symmetric"
    opt_in = True
    exact = False
    anchors = QDQ

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Requantize at `node` and at all that reads its integers."""
        zero, scale = array(input_at(node, 2)), array(node.inputs[1])
        if zero is None or zero.dtype not in (np.uint8, np.int8):
            return None
        if zero.dtype == np.int8 and not zero.any():
            return None
        if scale is None:
            raise Declined("its scale is not constant")
        group = _group(node)
        limits = np.iinfo(zero.dtype)
        ends = [limit - zero.astype(np.float64) for limit in (limits.min, limits.max)]
        amax = np.maximum(np.abs(ends[0]), np.abs(ends[1])) * scale
        wide = (amax / np.iinfo(np.int8).max).astype(scale.dtype)
        if node.op_type == "DequantizeLinear":
            if array(node.inputs[0]) is None:
                return None
            edit.rewire(node, 0, _requantized(node, wide, edit))
        for member in group:
            hint = f"{label(member)}_scale"
            member.replace_input_with(1, edit.constant(wide, near=member, hint=hint))
        _set_zero(group, np.zeros(zero.shape, np.int8), edit)
        return "is symmetric int8"


def _group(node: ir.Node) -> list[ir.Node]:
    """Return `node` and, for a QuantizeLinear, the DequantizeLinears that read it.

    Raises:
        Declined: another operator reads the integers, or a DequantizeLinear has other parameters.
    """
    if node.op_type == "DequantizeLinear":
        return [node]
    integers = node.outputs[0]
    if integers.is_graph_output():
        raise Declined("its integers are an output")
    readers = list(integers.consumers())
    for reader in readers:
        if reader.op_type != "DequantizeLinear" or reader.graph is not node.graph:
            raise Declined(f"its integers are read by {reader.op_type} '{label(reader)}'")
        for place in (1, 2):
            first, second = array(input_at(node, place)), array(input_at(reader, place))
            if first is None or second is None or not np.array_equal(first, second):
                raise Declined(f"'{label(reader)}' dequantizes with other parameters")
    return [node, *readers]


def _set_zero(group: list[ir.Node], zero: NDArray[Any], edit: Editor) -> None:
    for node in group:
        hint = f"{label(node)}_zero_point"
        node.replace_input_with(2, edit.constant(zero, near=node, hint=hint))
        if node.op_type == "QuantizeLinear":
            node.attributes.pop("output_dtype", None)
            node.outputs[0].type = ir.TensorType(ir.DataType.INT8)


def _requantized(node: ir.Node, scale: NDArray[Any], edit: Editor) -> ir.Value:
    """Round the constant that a DequantizeLinear reads to steps of `scale`."""
    floats = dequantized(node.outputs[0])
    if floats is None:
        raise Declined("it is scaled in blocks")
    if scale.size > 1:
        axis = normal_axis(int(attribute(node, "axis", 1)), floats.ndim)
        scale = scale.reshape([-1 if place == axis else 1 for place in range(floats.ndim)])
    limit = np.iinfo(np.int8).max
    steps = np.rint(floats.astype(np.float64) / scale.astype(np.float64))
    content = np.clip(steps, -limit, limit).astype(np.int8)
    return edit.constant(content, near=node, hint=f"{label(node)}_int8")
