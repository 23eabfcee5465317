"""Writes matrix products as Gemm, which absorbs an added row and Transposes.

``Gemm`` is ``alpha * A' · B' + beta * C`` over matrices, where ``'`` transposes if transA or transB is
set. For products of higher rank ONNX has only MatMul.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, permutation
from trtbuild.model.constants import array
from trtbuild.model.shapes import dims, rank
from trtbuild.model.traversal import maker
from trtbuild.passes.affine import channel_vector
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.scale_shift import split_operands

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["FuseMatmulAdd", "FuseTransposeIntoGemm", "is_matrix_product"]


def is_matrix_product(node: ir.Node) -> bool:
    """Return whether a MatMul multiplies two matrices of floats, so that a Gemm can replace it."""
    left, right = node.inputs[0], node.inputs[1]
    floats = all(
        value is not None and value.dtype is not None and value.dtype.is_floating_point()
        for value in (left, right)
    )
    return floats and rank(left) == 2 and rank(right) == 2


class FuseMatmulAdd(Pass):
    """Write a matrix product and a constant row that is added to it as one Gemm.

    Pattern: ``MatMul -> Add`` of a constant, on either side.
    Conditions: both factors are matrices of floats; the constant is a scalar, ``[N]`` or ``[1, N]`` (more
        rows or a higher rank would make the result larger); the product has no other reader.
    Effect: ``Gemm(A, B, c)``.
    Source: ONNX Runtime ``Matmul Add Fusion``.
    """

    name = "fuse_matmul_add"
    anchors = frozenset({"Add"})
    needs = frozenset({"MatMul"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node` and the MatMul that feeds it."""
        if not any(maker(value, "MatMul") for value in node.inputs):
            return None
        operands = split_operands(node)
        product = None if operands is None else maker(operands[0], "MatMul")
        if operands is None or product is None:
            raise Declined("its other operand is not constant")
        if not is_matrix_product(product):
            raise Declined("it is not a product of two float matrices")
        require_private(operands[0], node)
        columns = (dims(product.inputs[1]) or (None,))[-1]
        channel_vector(operands[1], 2, columns if isinstance(columns, int) else -1)
        content = array(operands[1])
        assert content is not None, "it is constant"
        hint = operands[1].name or "row"
        row = operands[1] if content.ndim == 1 else edit.constant(content.reshape(-1), node, hint)
        result = edit.add("Gemm", [*product.inputs, row], before=node, like=node.outputs[0])
        edit.replace(node, result, name=product.name)
        return f"became Gemm with '{product.name}'"


class FuseTransposeIntoGemm(Pass):
    """Let a Gemm transpose its factors instead of a Transpose.

    Pattern: ``Transpose`` before a MatMul of matrices, or of a Gemm.
    Conditions: rank 2. Another pass folds a transposed constant; ONNX has no operator for a batched product
        with transposed factors or for a Transpose of batch dims, so these stay.
    Effect: a Gemm with transA or transB inverted.
    Source: ONNX Runtime ``Matmul Transpose Fusion``.
    """

    name = "fuse_transpose_into_gemm"
    anchors = frozenset({"Gemm", "MatMul"})
    needs = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass the Transposes before `node`."""
        turned = [_transposed(node, place) for place in (0, 1)]
        if not any(turned):
            return None
        if node.op_type == "MatMul" and not is_matrix_product(node):
            raise Declined("it is not a product of two float matrices")
        sources = [
            node.inputs[place] if source is None else source for place, source in enumerate(turned)
        ]
        flags = {
            name: int(bool(attribute(node, name, 0)) != (source is not None))
            for name, source in zip(("transA", "transB"), turned)
        }
        rest = {key: attribute(node, key) for key in ("alpha", "beta")}
        operands = [*sources, *node.inputs[2:]]
        attributes = {**rest, **flags}
        result = edit.add("Gemm", operands, attributes, before=node, like=node.outputs[0])
        edit.replace(node, result, name=node.name)
        return "transposes its factors itself"


def _transposed(node: ir.Node, place: int) -> ir.Value | None:
    """Return the tensor before a Transpose of a matrix, or None."""
    transpose = maker(node.inputs[place], "Transpose")
    if transpose is None:
        return None
    perm = permutation(transpose, rank(transpose.inputs[0]))
    if perm is None or len(perm) < 2 or perm == tuple(range(len(perm))):
        return None
    return transpose.inputs[0]
