"""Folds constant factors in front of and behind matrix products into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute
from trtbuild.model.shapes import dims, rank
from trtbuild.model.traversal import maker
from trtbuild.passes.affine import Affine, channel_vector, fold_affine
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.matmul import is_matrix_product
from trtbuild.passes.rewrites.scale_shift import split_operands
from trtbuild.passes.weights import read_weight, scale_weight

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

    Factors = NDArray[np.float64]

__all__ = ["FoldScaleIntoMatmul"]

_PRODUCTS = ("Gemm", "MatMul")


class FoldScaleIntoMatmul(Pass):
    """Fold a constant factor before or after a matrix product into it.

    Pattern: Mul or Div by a constant before or after MatMul or Gemm.
    Conditions: the tensor between has no other reader. With a constant matrix: a scalar, a factor per
        column after it, or a factor per summed element before it. With two activations: a
        scalar, and matrices. ``c / MatMul``, a factor per row of the result, and a batched product of
        activations stay.
    Effect: the constant matrix times the factor, or alpha of a Gemm.
    Source: ONNX Runtime ``Matmul Scale Fusion``.
    """

    name = "fold_scale_into_matmul"
    anchors = frozenset({"Div", "Gemm", "MatMul", "Mul"})
    needs = frozenset(_PRODUCTS)

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold `node` if it is a factor, or a factor before it if it is a product."""
        if node.op_type in {"Div", "Mul"}:
            return _fold_behind(node, edit)
        return _fold_in_front(node, 0, edit) or _fold_in_front(node, 1, edit)


def _fold_behind(node: ir.Node, edit: Editor) -> str | None:
    if not any(maker(value, *_PRODUCTS) for value in node.inputs):
        return None
    operands = split_operands(node)
    if operands is None:
        raise Declined("the factor is not constant")
    product = maker(operands[0], *_PRODUCTS)
    if product is None:
        return None
    require_private(operands[0], node)
    factors = _factors(node)
    if product.op_type == "Gemm":
        _scale_gemm(product, factors, edit)
    elif _is_weight(product.inputs[1]):
        along = factors.reshape(*(1,) * ((rank(product.inputs[1]) or 1) - 1), -1)
        product.replace_input_with(1, scale_weight(product, along, edit))
    elif factors.size == 1 and _is_weight(product.inputs[0]):
        along = factors.reshape((1,) * (rank(product.inputs[0]) or 1))
        product.replace_input_with(0, scale_weight(product, along, edit, place=0))
    else:
        product = _as_gemm(product, factors, edit)
    edit.bypass(node, node.outputs[0], product.outputs[0])
    return f"folded into {product.op_type} '{product.name}'"


def _fold_in_front(node: ir.Node, place: int, edit: Editor) -> str | None:
    value = node.inputs[place]
    scale = maker(value, "Div", "Mul")
    operands = None if scale is None else split_operands(scale)
    if scale is None or value is None or operands is None:
        return None
    require_private(value, node)
    factors = _factors(scale)
    other = 1 - place
    if _is_weight(node.inputs[other]):
        along = _along_sum(node, other, factors)
        node.replace_input_with(other, scale_weight(node, along, edit, place=other))
    elif node.op_type == "Gemm" and factors.size == 1:
        edit.set_attribute(node, "alpha", attribute(node, "alpha", 1.0) * float(factors[0]))
    else:
        node = _as_gemm(node, factors, edit)
    edit.rewire(node, place, operands[0])
    return f"took in the factor '{scale.name}'"


def _factors(node: ir.Node) -> Factors:
    """Read the factor of a Mul or Div: one element, or one per element of the last axis."""
    operands = split_operands(node)
    assert operands is not None, "the caller has looked"
    computed, constant, on_left = operands
    if node.op_type == "Div" and on_left:
        raise Declined("the constant is on the left of the Div")
    known = dims(computed)
    if not known:
        raise Declined("the rank is not known")
    size = known[-1] if isinstance(known[-1], int) else -1
    vector = channel_vector(constant, len(known), size, axis=len(known) - 1)
    if node.op_type == "Mul":
        return vector
    if not vector.all():
        raise Declined("it divides by zero")
    return 1.0 / vector


def _is_weight(value: ir.Value | None) -> bool:
    try:
        return len(read_weight(value).shape) >= 2
    except Declined:
        return False


def _along_sum(node: ir.Node, place: int, factors: Factors) -> Factors:
    """Reshape the other operand's factors to lie along the summed axis of this operand."""
    depth = rank(node.inputs[place]) or 2
    if factors.size == 1:
        return factors.reshape((1,) * depth)
    if place == 0 or attribute(node, "transA", 0):
        raise Declined("the factors do not lie along the sum")
    last = bool(attribute(node, "transB", 0))
    return factors.reshape(*(1,) * (depth - (1 if last else 2)), -1, *(() if last else (1,)))


def _scale_gemm(gemm: ir.Node, factors: Factors, edit: Editor) -> None:
    """Multiply ``alpha * A · B + beta * C`` by `factors`."""
    if _is_weight(gemm.inputs[1]):
        fold_affine(gemm, Affine(scale=factors), edit)
        return
    if factors.size != 1:
        raise Declined("a factor per column of a product of activations has no operator")
    for key in ("alpha", "beta"):
        edit.set_attribute(gemm, key, attribute(gemm, key, 1.0) * float(factors[0]))


def _as_gemm(product: ir.Node, factors: Factors, edit: Editor) -> ir.Node:
    """Write a product of two matrices as a Gemm with a factor."""
    if factors.size != 1 or not is_matrix_product(product):
        raise Declined("a batched product of activations has no operator with a factor")
    alpha = {"alpha": float(factors[0])}
    result = edit.add("Gemm", product.inputs, alpha, before=product, like=product.outputs[0])
    edit.replace(product, result, name=product.name)
    gemm = result.producer()
    assert gemm is not None, "it was just made"
    return gemm
