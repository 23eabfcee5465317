"""Writes 1x1 convolutions over maps of one pixel as matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import array
from trtbuild.model.shapes import dims, rank
from trtbuild.model.traversal import label, maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.reshaping import RESHAPES

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertConvAfterGemm", "ConvertConvAfterGlobalPool"]


def _require_one_pixel(node: ir.Node) -> None:
    """Check that a Conv is a matrix product.

    Raises:
        Declined: it is not, or its dims are unknown.
    """
    source, weight = dims(node.inputs[0]), dims(node.inputs[1])
    if source is None or weight is None:
        raise Declined("its dims are not known")
    if any(size != 1 for size in (*source[2:], *weight[2:])):
        raise Declined("its map or its kernel has more than one pixel")
    if any(attribute(node, "pads", ())) or attribute(node, "group", 1) != 1:
        raise Declined("it pads, or has groups")


def _to_gemm(node: ir.Node, matrix: ir.Value, edit: Editor) -> str:
    """Replace a Conv over one pixel by a Gemm of `matrix` and an Unsqueeze."""
    content = array(node.inputs[1])
    spatial = (rank(node.inputs[0]) or 4) - 2
    if content is None:
        raise Declined("its weights are not constant")
    weight = edit.constant(
        content.reshape(content.shape[:2]), near=node, hint=f"{label(node)}_matrix"
    )
    bias = input_at(node, 2)
    operands = [matrix, weight] if bias is None else [matrix, weight, bias]
    product = edit.add("Gemm", operands, {"transB": 1}, before=node)
    axes = list(range(2, 2 + spatial))
    edit.replace(node, edit.add_with_axes("Unsqueeze", product, axes, before=node))
    return "became a Gemm"


class ConvertConvAfterGlobalPool(Pass):
    """Write a 1x1 convolution after global pooling as a Gemm.

    Pattern: global pooling, then a Conv with a kernel of ones.
    Conditions: no pads (which would make a larger map), one group, constant weights. Changes the form of the
        graph, and reverses convert_gemm_to_conv: on request.
    Effect: ``Flatten -> Gemm -> Unsqueeze``; a following Flatten cancels.
    Source: NCNN ``replace_convolution_with_innerproduct_after_global_pooling``.
    """

    name = "convert_conv_after_global_pool"
    opt_in = True
    anchors = frozenset({"Conv"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        source = node.inputs[0]
        pools = ("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
        if source is None or maker(source, *pools) is None:
            return None
        _require_one_pixel(node)
        if array(node.inputs[1]) is None:
            raise Declined("its weights are not constant")
        matrix = edit.add("Flatten", [source], {"axis": 1}, before=node)
        return _to_gemm(node, matrix, edit)


class ConvertConvAfterGemm(Pass):
    """Write a 1x1 convolution after a matrix product as a Gemm.

    Pattern: a matrix made by Gemm, MatMul, Add or Relu, then ``Reshape | Unsqueeze`` to ``[N, C, 1, 1]``,
        then a Conv with a kernel of ones.
    Conditions: the map has one pixel; else as for convert_conv_after_global_pool. On request.
    Effect: ``Gemm -> Gemm -> Unsqueeze``; a following Flatten cancels.
    Source: NCNN ``replace_convolution_with_innerproduct_after_innerproduct``.
    """

    name = "convert_conv_after_gemm"
    opt_in = True
    anchors = frozenset({"Conv"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        reshape = maker(node.inputs[0], *RESHAPES)
        matrix = None if reshape is None else reshape.inputs[0]
        if matrix is None or maker(matrix, "Add", "Gemm", "MatMul", "Relu") is None:
            return None
        known, image = dims(matrix), dims(node.inputs[0])
        if known is None or image is None or len(known) != 2:
            raise Declined("what is reshaped is not a matrix")
        _require_one_pixel(node)
        if image[1] is None or image[1] != known[1]:
            raise Declined("the Reshape moves features")
        return _to_gemm(node, matrix, edit)
