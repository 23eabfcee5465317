"""Writes other forms of products as MatMul with a constant weight on the right.

INT8 layers, fused attention and most passes know that form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute
from trtbuild.model.constants import array
from trtbuild.model.shapes import dims, rank
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertEinsumToMatmul", "MoveConstantToRightOfMatmul"]


class ConvertEinsumToMatmul(Pass):
    """Write an Einsum of two operands as a matrix product, for example in attention.

    Pattern: ``Einsum`` with two operands of floats, of which at most one is constant.
    Conditions: no label occurs twice in one operand, and none has size 1 in one operand only. With a
        constant: every label of the activation is summed with the weight or kept; at least one is summed, and
            one
        without the weight is kept. Without: one label is summed, one is only in the left operand, one only in
        the right, and none is lost. Labels in both operands and the result are batches.
    Effect: ``MatMul``, with a Transpose or Reshape before or after where the order of the
        labels requires it.
    Source: onnxoptimizer ``replace_einsum_with_matmul``, for a constant.
    """

    name = "convert_einsum_to_matmul"
    anchors = frozenset({"Einsum"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        if len(node.inputs) != 2:
            return None
        contents = [array(value) for value in node.inputs]
        if _repeats(node):
            raise Declined("an axis is 1 in one operand alone, which Einsum repeats")
        if contents[0] is None and contents[1] is None:
            return _multiplied(node, edit)
        if contents[0] is not None and contents[1] is not None:
            return None
        place = 0 if contents[0] is not None else 1
        content, source = contents[place], node.inputs[1 - place]
        assert content is not None
        assert source is not None
        if content.dtype.kind != "f":
            raise Declined("its constant holds no floats")
        product = _product(_terms(node), 1 - place)
        value = _in_order(source, product.activation, product.source_order, node, edit)
        value = _merged(value, product, content, node, edit)
        weight = edit.constant(_matrix(content, product), near=node, hint=f"{label(node)}_matrix")
        value = edit.add("MatMul", [value, weight], before=node)
        value = _split(value, product, content, node, edit)
        value = _in_order(value, product.kept + product.made, product.result, node, edit)
        edit.replace(node, value, name=node.name)
        return "became a MatMul"


def _multiplied(node: ir.Node, edit: Editor) -> str:
    """Replace an Einsum of two computed operands."""
    left, right = node.inputs
    if left is None or right is None or not _are_floats(left, right):
        raise Declined("its operands are not known to hold floats")
    ours, theirs, result = _terms(node)
    shared = [one for one in ours if one in theirs]
    summed = "".join(one for one in shared if one not in result)
    batched = "".join(one for one in result if one in shared)
    rows = "".join(one for one in ours if one not in shared)
    columns = "".join(one for one in theirs if one not in shared)
    if (len(summed), len(rows), len(columns)) != (1, 1, 1) or not {rows, columns} <= set(result):
        raise Declined("it is not a product of two matrices")
    if rank(left) != len(ours) or rank(right) != len(theirs):
        raise Declined("the ranks of its operands are not known")
    if result.index(columns) < result.index(rows):  # compute the transposed product instead
        left, right, ours, theirs, rows, columns = right, left, theirs, ours, columns, rows
    factors = [
        _in_order(left, ours, batched + rows + summed, node, edit),
        _in_order(right, theirs, batched + summed + columns, node, edit),
    ]
    value = edit.add("MatMul", factors, before=node)
    value = _in_order(value, batched + rows + columns, result, node, edit)
    edit.replace(node, value, name=node.name)
    return "became a MatMul"


def _repeats(node: ir.Node) -> bool:
    """Whether a label is known to have size 1 in one operand and another size in the other."""
    first, second, _ = _terms(node)
    left, right = (
        dict(zip(term, () if value is None else dims(value) or ()))
        for term, value in zip((first, second), node.inputs)
    )
    return any(
        left[one] != right[one] and 1 in (left[one], right[one]) for one in left if one in right
    )


def _are_floats(*values: ir.Value) -> bool:
    return all(value.dtype is not None and value.dtype.is_floating_point() for value in values)


def _terms(node: ir.Node) -> list[str]:
    """The labels of both operands and of the result; an ellipsis becomes capital letters.

    Raises:
        Declined: the ranks are unknown, a label occurs twice, or there are not enough letters.
    """
    left, arrow, result = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        counted = left.replace(",", "").replace("...", "")
        result = "..." * ("..." in left)
        result += "".join(sorted(one for one in set(counted) if counted.count(one) == 1))
    if "..." in left:
        unused = [one for one in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if one not in left]
        ranks = [rank(value) for value in node.inputs]
        sizes = [
            None if count is None else count - len(term.replace("...", ""))
            for count, term in zip(ranks, terms)
            if "..." in term
        ]
        if None in sizes or len(set(sizes)) != 1 or len(unused) < (sizes[0] or 0):
            raise Declined("the ranks behind its ellipsis are not known, or differ")
        letters = "".join(unused[: sizes[0]])
        terms = [term.replace("...", letters) for term in terms]
        result = result.replace("...", letters)
    if any(len(set(term)) != len(term) for term in (*terms, result)):
        raise Declined("a label stands twice in one operand")
    return [*terms, result]


@dataclass(frozen=True)
class _Product:
    """An Einsum as a matrix product: the role of each label.

    Attributes:
        activation, weight, result: the labels as in the Einsum.
        kept: labels of the activation that are kept, in the order of the product.
        batched: those of them that the weight has, too.
        summed: labels that are summed.
        made: labels of the result that only the weight has.
    """

    activation: str
    weight: str
    result: str
    kept: str
    batched: str
    summed: str
    made: str

    @property
    def source_order(self) -> str:
        """The labels of the activation in the order that the product needs."""
        return self.kept + self.summed


def _product(terms: list[str], source: int) -> _Product:
    activation, weight, result = terms[source], terms[1 - source], terms[2]
    summed = "".join(one for one in activation if one in weight and one not in result)
    if any(one not in result and one not in weight for one in activation):
        raise Declined("it sums the activation alone")
    made = "".join(one for one in result if one not in activation)
    batched = "".join(one for one in activation if one in weight and one in result)
    free = "".join(one for one in result if one in activation and one not in batched)
    if not summed or not free:
        raise Declined("nothing is summed, or every label is, so it is not a matrix product")
    # MatMul broadcasts: batch labels of the weight have to be directly before the last row label
    kept = free[:-1] + batched + free[-1]
    return _Product(activation, weight, result, kept, batched, summed, made)


def _in_order(
    value: ir.Value, have: str | tuple[str, ...], want: str, node: ir.Node, edit: Editor
) -> ir.Value:
    perm = ["".join(have).index(one) for one in want]
    if perm == list(range(len(perm))):
        return value
    return edit.add("Transpose", [value], {"perm": perm}, before=node)


def _merged(
    value: ir.Value,
    product: _Product,
    content: NDArray[np.generic],
    node: ir.Node,
    edit: Editor,
) -> ir.Value:
    """Merge the summed labels into one axis."""
    if len(product.summed) == 1:
        return value
    size = math.prod(_sizes(product.summed, product, content))
    dims = edit.constant(
        np.array([*[0] * len(product.kept), size], np.int64), node, f"{label(node)}_dims"
    )
    return edit.add("Reshape", [value, dims], before=node)


def _split(
    value: ir.Value, product: _Product, content: NDArray[np.generic], node: ir.Node, edit: Editor
) -> ir.Value:
    """Split the last axis into one axis for each label of the weight."""
    if len(product.made) == 1:
        return value
    sizes = _sizes(product.made, product, content)
    dims = np.array([*[0] * len(product.kept), *sizes], np.int64)
    return edit.add(
        "Reshape", [value, edit.constant(dims, node, f"{label(node)}_dims")], before=node
    )


def _sizes(labels: str, product: _Product, content: NDArray[np.generic]) -> list[int]:
    return [content.shape[product.weight.index(one)] for one in labels]


def _matrix(content: NDArray[np.generic], product: _Product) -> NDArray[np.generic]:
    """The weight as ``[batched..., summed, made]``; labels that are only in the weight are summed here."""
    lost = [
        one for one in product.weight if one not in product.batched + product.summed + product.made
    ]
    if lost:
        axes = tuple(product.weight.index(one) for one in lost)
        content = content.astype(np.float64).sum(axis=axes).astype(content.dtype)
    labels = "".join(one for one in product.weight if one not in lost)
    order = product.batched + product.summed + product.made
    turned = content.transpose([labels.index(one) for one in order])
    batch = turned.shape[: len(product.batched)]
    rows = math.prod(turned.shape[len(batch) : len(batch) + len(product.summed)])
    return np.ascontiguousarray(turned.reshape(*batch, rows, -1))


class MoveConstantToRightOfMatmul(Pass):
    """Write the product of a constant matrix and an activation with the constant on the right.

    Pattern: ``MatMul`` of a constant matrix of floats with an activation of rank 2 or more.
    Conditions: the rank of the activation is known.
    Effect: ``Transpose -> MatMul -> Transpose`` with the matrix transposed; other passes fold Transposes
        that meet.
    Source: ``A B = (B' A')'``.
    """

    name = "move_constant_to_right_of_matmul"
    anchors = frozenset({"MatMul"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        content, source = array(node.inputs[0]), node.inputs[1]
        if content is None or source is None or array(source) is not None:
            return None
        if content.ndim != 2 or content.dtype.kind != "f":
            raise Declined("its constant is not a matrix of floats")
        count = rank(source)
        if count is None or count < 2:
            raise Declined("the rank of the activation is not known, or it is a vector")
        perm = [*range(count - 2), count - 1, count - 2]
        weight = edit.constant(
            np.ascontiguousarray(content.T), near=node, hint=f"{label(node)}_matrix"
        )
        turned = edit.add("Transpose", [source], {"perm": perm}, before=node)
        product = edit.add("MatMul", [turned, weight], before=node)
        result = edit.add("Transpose", [product], {"perm": perm}, before=node)
        edit.replace(node, result, name=node.name)
        return "has its constant on the right"
