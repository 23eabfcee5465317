"""Folds and cancels Squeeze and Unsqueeze: of constants, in pairs, and with computed axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import axes, input_at, normal_axis
from trtbuild.model.constants import array, is_constant
from trtbuild.model.shapes import rank, static_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.constant_cone import fold_cone
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["CancelSqueezeUnsqueeze", "FoldSqueezeAxes", "FoldUnsqueeze"]


class FoldUnsqueeze(Pass):
    """Reshape a constant once instead of unsqueezing it in every run.

    Pattern: Unsqueeze of a constant.
    Conditions: the axes are constant; an overridable initializer is not a constant.
    Effect: a second initializer with the new dims; other readers keep the first one.
    Source: ONNX Runtime ``Unsqueeze Elimination``.
    """

    name = "fold_unsqueeze"
    anchors = frozenset({"Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node` by the constant with its new dims."""
        content, target = array(node.inputs[0]), static_dims(node.outputs[0])
        if content is None or target is None or axes(node) is None:
            return None
        edit.become_constant(node.outputs[0], content.reshape(target))
        return "is a constant with other dims"


class FoldSqueezeAxes(Pass):
    """Compute the axes of an Unsqueeze or Squeeze before the network runs.

    Pattern: Unsqueeze or Squeeze whose axes are computed from constants.
    Conditions: nothing in that computation is random, overridable or a graph input.
    Effect: the axes are an initializer.
    Source: MNN ``FoldExpandDimsConst``.
    """

    name = "fold_squeeze_axes"
    anchors = frozenset({"Squeeze", "Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold the axes of `node`."""
        operand = input_at(node, 1)
        if operand is None or is_constant(operand):
            return None
        if not fold_cone(operand, edit):
            raise Declined("its axes depend on an input")
        return "its axes are constant"


class CancelSqueezeUnsqueeze(Pass):
    """Remove consecutive Squeeze and Unsqueeze of the same axes.

    Pattern: ``Unsqueeze -> Squeeze`` or ``Squeeze -> Unsqueeze``.
    Conditions: both have constant axes, and the same ones, counted from the front.
    Effect: readers read the tensor before both.
    Source: MNN ``EliminateSqueezeExpandDims``.
    """

    name = "cancel_squeeze_unsqueeze"
    anchors = frozenset({"Squeeze", "Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` and its opposite."""
        other = "Squeeze" if node.op_type == "Unsqueeze" else "Unsqueeze"
        first = maker(node.inputs[0], other)
        if first is None or first.inputs[0] is None:
            return None
        unsqueeze = node if node.op_type == "Unsqueeze" else first
        long = rank(unsqueeze.outputs[0])
        written = [axes(item) for item in (first, node)]
        if long is None or any(not item for item in written):
            raise Declined("the axes or the rank are not known")
        sets = [{normal_axis(axis, long) for axis in item or ()} for item in written]
        if sets[0] != sets[1]:
            raise Declined("the axes differ")
        edit.bypass(node, node.outputs[0], first.inputs[0])
        return f"undid {other} '{first.name}'"
