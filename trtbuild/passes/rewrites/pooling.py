"""Removes pooling over single elements, and writes means as global pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, axes, normal_axis
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertMeanToGlobalPool", "RemovePool1x1"]


class RemovePool1x1(Pass):
    """Remove pooling over windows of one element.

    Pattern: MaxPool or AveragePool with a kernel of ones.
    Conditions: all strides 1, no pads, indices not read. LpPool computes ``|x|`` and stays.
    Effect: readers read the input.
    Source: NCNN ``eliminate_pooling1x1``.
    """

    name = "remove_pool_1x1"
    anchors = frozenset({"AveragePool", "MaxPool"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if each of its windows is one element."""
        source = node.inputs[0]
        if source is None or set(attribute(node, "kernel_shape", ())) != {1}:
            return None
        if set(attribute(node, "strides", ())) - {1}:
            raise Declined("it leaves elements out")
        if any(attribute(node, "pads", ())):
            raise Declined("it pads")
        if any(extra.uses() or extra.is_graph_output() for extra in node.outputs[1:]):
            raise Declined("its indices are read")
        edit.bypass(node, node.outputs[0], source)
        return f"pooled single elements of '{source.name}'"


class ConvertMeanToGlobalPool(Pass):
    """Write the mean over all spatial axes as GlobalAveragePool.

    Pattern: one ReduceMean or two in a row, over axes 2 to the last of a tensor of rank 4 or 5.
    Conditions: the axes are constant and the rank is known; NHWC axes, a mean over one of two spatial axes,
        and other reductions stay; a tensor of rank 3 is a sequence, not an image, and stays.
    Effect: GlobalAveragePool, and a Flatten after it where the dims are not kept.
    Source: NCNN ``replace_reduction_with_global_pooling``.
    """

    name = "convert_mean_to_global_pool"
    anchors = frozenset({"ReduceMean"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`, and a ReduceMean before it."""
        source, over, keeps = _mean(node)
        count = rank(source)
        if source is None or source.dtype is None or not source.dtype.is_floating_point():
            return None
        if count not in (4, 5) or over != set(range(2, count)):
            return None
        pooled = edit.add("GlobalAveragePool", [source], before=node)
        if not keeps:
            pooled = edit.add("Flatten", [pooled], {"axis": 1}, before=node)
        edit.forward(node.outputs[0], pooled)
        edit.drop(node)
        return "became GlobalAveragePool"


def _mean(node: ir.Node) -> tuple[ir.Value | None, set[int], bool]:
    """Return the averaged tensor, its averaged axes, and whether the dims are kept."""
    over, keeps = _own_axes(node), bool(attribute(node, "keepdims", 1))
    first = maker(node.inputs[0], "ReduceMean")
    if first is None or node.inputs[0] is None:
        return node.inputs[0], over, keeps
    inner, inner_keeps = _own_axes(first), bool(attribute(first, "keepdims", 1))
    count = rank(first.inputs[0])
    if not over or not inner or inner_keeps != keeps or count is None:
        return None, set(), keeps
    require_private(node.inputs[0], node)
    left = [axis for axis in range(count) if keeps or axis not in inner]
    return first.inputs[0], inner | {left[axis] for axis in over}, keeps


def _own_axes(node: ir.Node) -> set[int]:
    written, count = axes(node), rank(node.inputs[0])
    if not written or count is None:
        return set()
    return {normal_axis(axis, count) for axis in written}
