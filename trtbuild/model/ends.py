"""The end of a network: the operator that makes an output, before nodes that only move values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["end_of", "has_unit_length"]

_PASSED_OVER = frozenset(
    {
        "Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_NORMS = frozenset({"LpNormalization", "ReduceL2"})
_BEHIND_NORM = frozenset({"Clip", "Expand", "Identity", "Max", "Reshape", "Unsqueeze", "Cast"})


def end_of(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes `value`, skipping those that only move, cast or quantize values."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _PASSED_OVER:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return node


def has_unit_length(value: ir.Value) -> bool:
    """Return whether `value` is divided by its own Euclidean norm at the end."""
    node = end_of(value)
    if node is None:
        return False
    if node.op_type == "LpNormalization":
        return node.attributes.get_int("p", 2) == 2
    return node.op_type == "Div" and len(node.inputs) == 2 and _is_norm(node.inputs[1])


def _is_norm(value: ir.Value | None, depth: int = 8) -> bool:
    node = None if value is None else value.producer()
    if node is None or depth == 0:
        return False
    if node.op_type in _NORMS:
        return True
    if node.op_type in _BEHIND_NORM:
        return any(_is_norm(one, depth - 1) for one in node.inputs if not is_constant(one))
    if node.op_type == "Add":
        return any(_is_norm(one, depth - 1) for one in node.inputs)
    return node.op_type in ("Sqrt", "Pow") and any(map(_is_sum, node.inputs))


def _is_sum(value: ir.Value | None) -> bool:
    """Whether `value` is a sum (of squares, which is not checked), perhaps with a small constant added."""
    node = None if value is None else value.producer()
    if node is None:
        return False
    if node.op_type == "Add":
        return any(map(_is_sum, node.inputs))
    return node.op_type in ("ReduceSum", "ReduceSumSquare")
