"""Writes matrix products by constant matrices as 1x1 convolutions, for engines that run those faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import array
from trtbuild.model.shapes import dims, rank
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.reshaping import add_reshape, reshape_target
from trtbuild.passes.weights import rounded

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertGemmToConv", "ConvertMatmulToConv"]


class ConvertMatmulToConv(Pass):
    """Write a MatMul by a constant matrix as a 1x1 convolution.

    Pattern: MatMul of rank 2 or more by a constant matrix ``[K, N]`` on the right.
    Conditions: floats; at most one dim of the result is unknown. Two activations, a matrix per batch
        entry, and a constant on the left (which mixes rows) stay. Changes the form of the graph: on request.
    Effect: ``Reshape [-1, K, 1, 1] -> Conv -> Reshape`` to the dims of the product.
    Source: MNN ``ConvertMatMulToConv2D``.
    """

    name = "convert_matmul_to_conv"
    opt_in = True
    anchors = frozenset({"MatMul"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        source, matrix = node.inputs[0], array(node.inputs[1])
        if source is None or matrix is None:
            raise Declined("there is no constant matrix on its right")
        count = rank(source)
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or count is None or count < 2:
            raise Declined("the constant is not a single matrix of floats")
        output = node.outputs[0]
        back = reshape_target((), dims(output))
        if back is None:
            raise Declined("more than one dim of the result is not known")
        depth, columns = matrix.shape
        rows = add_reshape(source, (-1, depth, 1, 1), edit, before=node)
        weight = edit.constant(
            matrix.T.reshape(columns, depth, 1, 1), near=node, hint=f"{label(node)}_weight"
        )
        product = edit.add("Conv", [rows, weight], {"kernel_shape": [1, 1]}, before=node)
        edit.replace(node, add_reshape(product, back, edit, before=node, like=output))
        return "became a 1x1 Conv"


class ConvertGemmToConv(Pass):
    """Write a Gemm by a constant matrix as a 1x1 convolution.

    Pattern: Gemm with constant B, any transB, alpha, beta.
    Conditions: transA is 0; C is a constant row, a scalar, or absent; floats. Changes the form of the graph,
        and reverses the two passes that make a Gemm of a Conv: on request.
    Effect: ``Unsqueeze -> Conv -> Squeeze`` with alpha in the weights and beta in the bias.
    Source: MNN ``TransformInnerProduct``.
    """

    name = "convert_gemm_to_conv"
    opt_in = True
    anchors = frozenset({"Gemm"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        source, matrix = node.inputs[0], array(node.inputs[1])
        if source is None or matrix is None or matrix.dtype.kind != "f":
            raise Declined("B is not a constant matrix of floats")
        if attribute(node, "transA", 0):
            raise Declined("transA swaps rows and features")
        rows = matrix if attribute(node, "transB", 0) else matrix.T
        alpha = float(attribute(node, "alpha", 1.0))
        weight = rounded(rows.astype(np.float64) * alpha, matrix.dtype)
        operands = [edit.constant(weight[:, :, None, None], node, f"{label(node)}_weight")]
        bias = self._bias(node, rows.shape[0])
        if bias is not None:
            content = rounded(bias, matrix.dtype)
            operands.append(edit.constant(content, near=node, hint=f"{label(node)}_bias"))
        image = edit.add_with_axes("Unsqueeze", source, [2, 3], before=node)
        product = edit.add("Conv", [image, *operands], {"kernel_shape": [1, 1]}, before=node)
        edit.replace(node, edit.add_with_axes("Squeeze", product, [2, 3], before=node))
        return "became a 1x1 Conv"

    def _bias(self, node: ir.Node, columns: int) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        operand = input_at(node, 2)
        if operand is None:
            return None
        content = array(operand)
        if content is None:
            raise Declined("C is not constant")
        padded = (1,) * (2 - content.ndim) + content.shape
        if padded[0] != 1 or padded[1] not in (1, columns):
            raise Declined("C is no row")
        scaled = content.astype(np.float64).reshape(-1) * float(attribute(node, "beta", 1.0))
        return np.broadcast_to(scaled, (columns,))
