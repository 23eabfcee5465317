"""The operators that keep images apart, each in the forms in which it does so.

An operator that is not listed may mix images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import input_at
from trtbuild.model.operators import RECURRENT
from trtbuild.model.shapes import rank
from trtbuild.search.rows.one_operand import OF_ONE_OPERAND
from trtbuild.search.rows.reshaping import OF_LENGTHS
from trtbuild.search.rows.several_operands import OF_SEVERAL_OPERANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.search.rows.known import Known
    from trtbuild.search.rows.sizes import Rows

__all__ = ["rows_of"]

_OF_OPERANDS = {**OF_SEVERAL_OPERANDS, **OF_LENGTHS}


def rows_of(node: ir.Node, known: Known) -> Sequence[Rows] | None:
    """Return where images lie in each output of a node; None if it is not known to keep them apart."""
    rows = _rows_of(node, known)
    if rows is None:
        return None
    if node.op_type in RECURRENT:
        # all steps have an axis for the directions, in front of the images
        return [rows.at(2), rows, rows]
    return [rows] * len(node.outputs)


def _rows_of(node: ir.Node, known: Known) -> Rows | None:
    rule = _OF_OPERANDS.get(node.op_type)
    if rule is not None:
        return rule(node, known)
    own, value = OF_ONE_OPERAND.get(node.op_type), input_at(node, 0)
    rows, num_axes = known.rows(value), rank(value)
    if own is None or rows is None or num_axes is None:
        return None
    return own(node, rows, num_axes) if all(map(known.is_fixed, node.inputs[1:])) else None
