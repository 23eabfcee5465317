"""Folds all nodes that one operand depends on if they work on constants only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import ExecutionError
from trtbuild.model.attributes import is_random
from trtbuild.model.constants import array, is_constant
from trtbuild.model.traversal import has_bodies
from trtbuild.passes.declined import Declined
from trtbuild.runtime.evaluation import evaluate

if TYPE_CHECKING:
    from typing import Any

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["fold_cone"]

_LARGEST = 256
"""Nodes. Few nodes compute axes or a shape; larger cones are left to constant folding."""

_KEPT = frozenset({"DequantizeLinear", "DynamicQuantizeLinear"})


def fold_cone(value: ir.Value, edit: Editor) -> bool:
    """Replace `value` by a constant if it depends on constants only.

    Raises:
        Declined: ONNX Runtime cannot compute it.
    """
    cone = _cone(value)
    if not cone:
        return False
    group = set(cone)
    constants: dict[ir.Value, NDArray[Any]] = {}
    for node in cone:
        for operand in node.inputs:
            content = None if operand is None or operand.producer() in group else array(operand)
            if operand is not None and content is not None:
                constants[operand] = content
    try:
        (result,) = evaluate(cone, constants, [value], edit.model.opset_imports)
    except ExecutionError as error:
        raise Declined(f"ONNX Runtime cannot compute it: {error.reason}") from error
    edit.become_constant(value, result)
    return True


def _cone(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that make `value`, in order; none if they read more than constants."""
    order: dict[ir.Node, None] = {}

    def visit(current: ir.Value | None) -> bool:
        """Append the nodes that make `current`; return whether they read constants only."""
        if current is None or is_constant(current):
            return True
        node = current.producer()
        if node in order:
            return True
        if node is None or not _computes(node) or len(order) > _LARGEST:
            return False
        if not all(visit(operand) for operand in node.inputs):
            return False
        order[node] = None
        return True

    return list(order) if visit(value) else []


def _computes(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type in _KEPT or is_random(node):
        return False
    return not has_bodies(node)
