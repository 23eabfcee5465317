"""Operators whose first operand depends on images, while all others are fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import (
    attribute,
    axes,
    input_at,
    is_inference_batch_norm,
    normal_axis,
    pad_widths,
    permutation,
)
from trtbuild.model.constants import integers
from trtbuild.model.operators import CONVOLUTIONS, POOLING, QDQ, UNARY
from trtbuild.model.shapes import dims, element_count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import onnx_ir as ir

    from trtbuild.search.rows.sizes import Rows

    Rule = Callable[[ir.Node, Rows, int], Rows | None]

__all__ = ["OF_ONE_OPERAND", "is_one_entry"]

# Ends of a Slice from here on mean the end of the axis.
_TO_THE_END = (1 << 31) - 1

_ELEMENT_BY_ELEMENT = UNARY | {
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cosh", "IsInf", "IsNaN", "Shrink",
    "Sinh", "Tan",
}  # fmt: skip
# They take images along axis 0 alone.
_OF_IMAGES = CONVOLUTIONS | {
    "DepthToSpace", "GroupNormalization", "InstanceNormalization", "LRN", "SpaceToDepth",
}  # fmt: skip
_REDUCTIONS = frozenset(
    f"Reduce{kind}"
    for kind in (
        "L1",
        "L2",
        "LogSum",
        "LogSumExp",
        "Max",
        "Mean",
        "Min",
        "Prod",
        "Sum",
        "SumSquare",
    )
)


def is_one_entry(value: ir.Value | None, from_last: int) -> bool:
    """Return whether an operand has one entry along an axis, or lacks it, and so is broadcast along it.

    Args:
        value: the operand; None if it is left out.
        from_last: the axis, -1 for the last one.
    """
    found = () if value is None else dims(value)
    return found is not None and (len(found) < -from_last or found[from_last] == 1)


def _kept(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    del node, num_axes
    return rows


def _kept_in_front(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    del node
    return rows if rows.axis == 0 and num_axes > 1 else None


def _others(found: Collection[int] | None, rows: Rows, num_axes: int) -> list[int] | None:
    """Count axes from the front; None if they are not known, or that of the images is among them."""
    if found is None:
        return None
    normal = [normal_axis(axis, num_axes) for axis in found]
    is_apart = rows.axis not in normal and all(0 <= axis < num_axes for axis in normal)
    return normal if is_apart else None


def _without(found: Collection[int], rows: Rows) -> Rows:
    """The place of the images after axes are removed."""
    return rows.at(rows.axis - sum(axis < rows.axis for axis in found))


def _reduced_along(
    found: Collection[int] | None, node: ir.Node, rows: Rows, num_axes: int
) -> Rows | None:
    others = _others(found, rows, num_axes)
    if others is None:
        return None
    return rows if attribute(node, "keepdims", 1) else _without(others, rows)


def _along(default: int) -> Rule:
    """The node works along the axis that it names, by default `default`."""

    def rule(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
        found = _others([int(attribute(node, "axis", default))], rows, num_axes)
        return None if found is None else rows

    return rule


def _normalized(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """Along the axes from the named one on."""
    first = normal_axis(int(attribute(node, "axis", -1)), num_axes)
    factors = (is_one_entry(value, rows.axis - num_axes) for value in node.inputs[1:])
    return rows if first > rows.axis and all(factors) else None


def _rounded(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """Per tensor, or with scales along another axis."""
    if element_count(node.inputs[1]) == 1:
        return rows
    return _along(1)(node, rows, num_axes)


def _pooled(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """The second output of MaxPool counts places from the first image of the batch on."""
    if any(one.uses() or one.is_graph_output() for one in node.outputs[1:]):
        return None
    return _kept_in_front(node, rows, num_axes)


def _by_statistics(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    return _kept_in_front(node, rows, num_axes) if is_inference_batch_norm(node) else None


def _reduced(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    given = axes(node)
    if given == ():
        return rows if attribute(node, "noop_with_empty_axes", 0) else None
    return _reduced_along(given, node, rows, num_axes)


def _largest(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    return _reduced_along([int(attribute(node, "axis", 0))], node, rows, num_axes)


def _centered(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    found = _others(attribute(node, "axes", (0, 2, 3)), rows, num_axes)
    return None if found is None else rows


def _accumulated(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    found = _others(integers(node.inputs[1]), rows, num_axes)
    return None if found is None else rows


def _one_hot(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """The classes get an axis of their own."""
    new = normal_axis(int(attribute(node, "axis", -1)), num_axes + 1)
    return rows.at(rows.axis + (new <= rows.axis))


def _transposed(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    found = permutation(node, num_axes) or ()
    return rows.at(found.index(rows.axis)) if rows.axis in found else None


def _squeezed(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """Without given axes, a batch of one image would lose its axis."""
    found = _others(axes(node) or None, rows, num_axes)
    return None if found is None else _without(found, rows)


def _unsqueezed(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    found = axes(node)
    if found is None:
        return None
    count = num_axes + len(found)
    new = {normal_axis(axis, count) for axis in found}
    return rows.at([axis for axis in range(count) if axis not in new][rows.axis])


def _sliced(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """Along other axes, or from the first image to the last."""
    starts, ends, found, steps = (integers(input_at(node, place)) for place in (1, 2, 3, 4))
    if input_at(node, 3) is None and starts is not None:
        found = tuple(range(len(starts)))
    if found is None:
        return None
    for place, axis in enumerate(found):
        if normal_axis(axis, num_axes) == rows.axis:
            is_forward = input_at(node, 4) is None or (steps is not None and steps[place] == 1)
            is_from_first = starts is not None and starts[place] == 0
            is_to_last = ends is not None and ends[place] >= _TO_THE_END
            if not (is_forward and is_from_first and is_to_last):
                return None
    return rows


def _padded(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    widths = pad_widths(node)
    found = integers(input_at(node, 3)) if input_at(node, 3) is not None else range(num_axes)
    if widths is None or found is None or len(widths) != 2 * len(found):
        return None
    pairs = zip(found, widths[: len(found)], widths[len(found) :])
    is_apart = all(normal_axis(axis, num_axes) != rows.axis for axis, *own in pairs if any(own))
    return rows if is_apart else None


def _of_matrices(node: ir.Node, rows: Rows, num_axes: int) -> Rows | None:
    """The last two axes are those of matrices."""
    del node
    return rows if rows.axis < num_axes - 2 else None


OF_ONE_OPERAND: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENT_BY_ELEMENT, _kept),
    **dict.fromkeys(_OF_IMAGES, _kept_in_front),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(POOLING, _pooled),
    **dict.fromkeys(QDQ, _rounded),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "LpNormalization", "Softmax", "TopK"), _along(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin"), _largest),
    **dict.fromkeys(("CumProd", "CumSum"), _accumulated),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _normalized),
    "BatchNormalization": _by_statistics,
    "Dropout": _kept,
    "MeanVarianceNormalization": _centered,
    "OneHot": _one_hot,
    "Pad": _padded,
    "Slice": _sliced,
    "Split": _along(0),
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Trilu": _of_matrices,
    "Unsqueeze": _unsqueezed,
}
"""Operator -> where images lie in a node's outputs, from the node and its first operand's rows and rank."""
