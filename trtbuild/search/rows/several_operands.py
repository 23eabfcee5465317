"""Operators of which several operands may depend on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.operators import BROADCASTING, RECURRENT
from trtbuild.model.shapes import rank
from trtbuild.search.rows.one_operand import is_one_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx_ir as ir

    from trtbuild.search.rows.known import Known
    from trtbuild.search.rows.sizes import Rows

__all__ = ["OF_SEVERAL_OPERANDS"]

_ELEMENT_BY_ELEMENT = BROADCASTING | {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "PRelu"}


def _common(values: Iterable[ir.Value | None], known: Known) -> Rows | None:
    """Where images lie in all of some tensors; None if they do not lie in one, or lie elsewhere in it."""
    found = {known.rows(value) for value in values}
    return found.pop() if len(found) == 1 else None


def _broadcast(values: Iterable[ir.Value | None], num_axes: int, known: Known) -> Rows | None:
    """Where images lie in a result of `num_axes` axes; axes are counted from the last one."""
    given = [(one, rank(one), known.rows(one)) for one in values if one is not None]
    if any(count is None for _, count, _ in given):
        return None
    places = {rows.at(num_axes - (count or 0) + rows.axis) for _, count, rows in given if rows}
    if len(places) != 1:
        return None
    (place,) = places
    others = [one for one, _, rows in given if rows is None]
    is_apart = all(
        known.is_fixed(one) and is_one_entry(one, place.axis - num_axes) for one in others
    )
    return place if is_apart else None


def _element_by_element(node: ir.Node, known: Known) -> Rows | None:
    return _broadcast(node.inputs, max(rank(value) or 0 for value in node.inputs), known)


def _product(node: ir.Node, known: Known) -> Rows | None:
    """Images lie along a batch of matrices, or along the rows of the left or the columns of the right one."""
    left, right = node.inputs
    counts = (rank(left) or 0, rank(right) or 0)
    rows, num_axes = (known.rows(left), known.rows(right)), max(*counts, 2)
    if 0 in counts:
        return None
    if rows[0] is not None and rows[0].axis == counts[0] - 2:
        return rows[0].at(num_axes - 2) if known.is_fixed(right) else None
    if rows[1] is not None and rows[1].axis == counts[1] - 1 and counts[1] > 1:
        removed = counts[0] == 1
        return rows[1].at(num_axes - 1 - removed) if known.is_fixed(left) else None
    if any(one is not None and one.axis >= count - 2 for one, count in zip(rows, counts)):
        return None
    return _broadcast(node.inputs, num_axes, known)


def _product_and_sum(node: ir.Node, known: Known) -> Rows | None:
    left, right = node.inputs[:2]
    if attribute(node, "transA", 0) or not known.is_fixed(right) or known.rows(left) is None:
        return None
    found = _broadcast((left, input_at(node, 2)), 2, known)
    return found if found is not None and found.axis == 0 else None


def _works_along(node: ir.Node, rows: Rows) -> bool:
    """Whether a node works along the axis of the images, or along one that is not known."""
    num_axes = rank(node.inputs[0])
    axis = int(attribute(node, "axis", 0))
    return (num_axes is None and axis < 0) or normal_axis(axis, num_axes or 0) == rows.axis


def _joined(node: ir.Node, known: Known) -> Rows | None:
    found = _common(node.inputs, known)
    return None if found is None or _works_along(node, found) else found


def _picked(node: ir.Node, known: Known) -> Rows | None:
    """The same places of every image, or entries of a table for each image."""
    table, places = node.inputs
    num_axes, count = rank(table), rank(places)
    if num_axes is None or count is None:
        return None
    axis = normal_axis(int(attribute(node, "axis", 0)), num_axes)
    rows, chosen = known.rows(table), known.rows(places)
    if rows is not None and axis != rows.axis and known.is_fixed(places):
        return rows.at(rows.axis + (count - 1 if axis < rows.axis else 0))
    if chosen is not None and known.is_fixed(table):
        return chosen.at(axis + chosen.axis)
    return None


def _picked_by_vectors(node: ir.Node, known: Known) -> Rows | None:
    """Places of each image in itself, or in a table."""
    table, places = node.inputs
    num_shared = int(attribute(node, "batch_dims", 0))
    found = known.rows(places)
    if found is None or found.axis >= (rank(places) or 0) - 1:
        return None
    if known.is_fixed(table):
        return None if num_shared else found
    return found if found == known.rows(table) and found.axis < num_shared else None


def _sampled(node: ir.Node, known: Known) -> Rows | None:
    found = _common(node.inputs, known)
    return found if found is not None and found.axis == 0 else None


def _equation(node: ir.Node, known: Known) -> Rows | None:
    """An Einsum without an ellipsis, in which one letter stands for the images, and for nothing else."""
    terms, arrow, result = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    parts = terms.split(",")
    if not arrow or "." in terms + result or len(parts) != len(node.inputs):
        return None
    letters, sizes, fixed = set(), set(), ""
    for part, value in zip(parts, node.inputs):
        rows = known.rows(value)
        if rows is not None and rows.axis < len(part):
            letters.add(part[rows.axis])
            sizes.add(rows.at(0))
            fixed += part[: rows.axis] + part[rows.axis + 1 :]
        elif known.is_fixed(value):
            fixed += part
        else:
            return None
    if len(letters) != 1 or len(sizes) != 1:
        return None
    letter, size = letters.pop(), sizes.pop()
    is_apart = letter not in fixed and result.count(letter) == 1
    return size.at(result.index(letter)) if is_apart else None


def _recurrent(node: ir.Node, known: Known) -> Rows | None:
    """Over steps along axis 0, with images along axis 1 of the operand and of the states."""
    found = known.rows(node.inputs[0])
    if found is None or found.axis != 1 or attribute(node, "layout", 0):
        return None
    weights = (input_at(node, place) for place in (1, 2, 3, 7))
    lengths, states = input_at(node, 4), [input_at(node, place) for place in (5, 6)]
    is_apart = (lengths is None or known.rows(lengths) == found.at(0)) and all(
        one is None or known.rows(one) == found for one in states
    )
    return found if is_apart and all(map(known.is_fixed, weights)) else None


OF_SEVERAL_OPERANDS: Mapping[str, Callable[[ir.Node, Known], Rows | None]] = {
    **dict.fromkeys(_ELEMENT_BY_ELEMENT, _element_by_element),
    **dict.fromkeys(("Concat", "GatherElements", "ScatterElements"), _joined),
    **dict.fromkeys(RECURRENT, _recurrent),
    "Einsum": _equation,
    "Gather": _picked,
    "GatherND": _picked_by_vectors,
    "Gemm": _product_and_sum,
    "GridSample": _sampled,
    "MatMul": _product,
}
"""Operator -> where images lie in a node's outputs; None if it is not known to keep them apart."""
