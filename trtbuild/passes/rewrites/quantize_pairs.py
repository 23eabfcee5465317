"""Removes a QuantizeLinear after a DequantizeLinear with the same parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import constant_tensor
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["CancelDequantizeQuantize"]

_EXACT_BITS = 8
"""8-bit integers survive any float scale exactly; wider ones may round in float16."""


class CancelDequantizeQuantize(Pass):
    """Remove a requantization with the same parameters.

    Pattern: ``DequantizeLinear -> QuantizeLinear``; ``Q -> DQ -> Q -> DQ`` becomes ``Q -> DQ``.
    Conditions: the same scale, zero point, type and axis, by value. A lone ``Q -> DQ`` is INT8
        information for TensorRT and stays; so does a pair with other parameters.
    Effect: readers read the integers before the pair.
    Source: MNN ``EliminateQuantAndDequant``, which drops both orders and compares no scale.
    """

    name = "cancel_dequantize_quantize"
    anchors = frozenset({"QuantizeLinear"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` and the DequantizeLinear before it."""
        first = maker(node.inputs[0], "DequantizeLinear")
        if first is None or first.inputs[0] is None:
            return None
        integers = first.inputs[0]
        if integers.dtype is None or integers.dtype != node.outputs[0].dtype:
            raise Declined("it quantizes to another type")
        if not integers.dtype.is_integer() or integers.dtype.bitwidth > _EXACT_BITS:
            raise Declined("wide integers may round")
        if not _same(first.inputs[1], node.inputs[1]):
            raise Declined("it quantizes with another scale")
        if not _same_zero(input_at(first, 2), input_at(node, 2)):
            raise Declined("it quantizes with another zero point")
        if not _same_axis(first, node):
            raise Declined("it quantizes along another axis")
        edit.bypass(node, node.outputs[0], integers)
        return f"quantized '{integers.name}' again"


def _same(first: ir.Value | None, second: ir.Value | None) -> bool:
    if first is second:
        return first is not None
    left, right = constant_tensor(first), constant_tensor(second)
    if left is None or right is None or left.dtype != right.dtype:
        return False
    return left.size == right.size and left.tobytes() == right.tobytes()


def _same_zero(first: ir.Value | None, second: ir.Value | None) -> bool:
    """Compare zero points; an omitted one is zero."""
    if first is not None and second is not None:
        return _same(first, second)
    given = first if first is not None else second
    tensor = constant_tensor(given)
    return given is None or (tensor is not None and not np.any(tensor.numpy()))


def _same_axis(first: ir.Node, second: ir.Node) -> bool:
    if attribute(first, "block_size", 0) != attribute(second, "block_size", 0):
        return False
    tensor = constant_tensor(first.inputs[1])
    if rank(first.inputs[1]) == 0 or (tensor is not None and tensor.size == 1):
        return True
    count = rank(first.inputs[0])
    places = [int(attribute(node, "axis", 1)) for node in (first, second)]
    if count is not None:
        places = [normal_axis(place, count) for place in places]
    return places[0] == places[1]
