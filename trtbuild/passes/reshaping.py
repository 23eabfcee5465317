"""Operators that change only the dims of a tensor, not its elements or their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute
from trtbuild.model.constants import integers
from trtbuild.model.shapes import Dims, dims, rank, same_dims
from trtbuild.model.traversal import maker

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "RESHAPES",
    "add_reshape",
    "equal_ancestor",
    "keeps_dims",
    "leading_ones",
    "reshape_target",
]

RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def equal_ancestor(node: ir.Node) -> ir.Value | None:
    """Return the nearest tensor before `node`, across reshapes only, with its output's dims, or None."""
    wanted = dims(node.outputs[0])
    current: ir.Node | None = node
    while current is not None:
        source = current.inputs[0]
        if same_dims(dims(source), wanted):
            return source
        current = maker(source, *RESHAPES)
    return None


def keeps_dims(node: ir.Node) -> bool:
    """Return whether a Reshape, Flatten, Squeeze or Unsqueeze does not change the dims."""
    source = node.inputs[0]
    if same_dims(dims(source), dims(node.outputs[0])):
        return True
    known = dims(source)
    if known is None:
        return False
    if node.op_type == "Flatten":
        return len(known) == 2 and attribute(node, "axis", 1) in (1, -1)
    target = integers(node.inputs[1]) if node.op_type == "Reshape" else None
    if target is None or len(target) != len(known) or target.count(-1) > 1:
        return False
    copies = not attribute(node, "allowzero", 0)
    return all(want in (-1, have) or (want == 0 and copies) for want, have in zip(target, known))


def reshape_target(source: Dims | None, result: Dims | None) -> tuple[int, ...] | None:
    """Return the constant target of a Reshape from `source` to `result`; None where there is none.

    A symbolic dim is written as 0 where the source has it in the same place; one other may be -1.
    """
    if source is None or result is None or 0 in result:
        return None
    target: list[int] = []
    for place, dim in enumerate(result):
        if isinstance(dim, int):
            target.append(dim)
        elif dim is not None and place < len(source) and source[place] == dim:
            target.append(0)
        else:
            target.append(-1)
    return tuple(target) if target.count(-1) <= 1 else None


def add_reshape(
    source: ir.Value,
    target: tuple[int, ...],
    edit: Editor,
    *,
    before: ir.Node,
    like: ir.Value | None = None,
) -> ir.Value:
    """Insert a Reshape of `source` to the constant `target`; its output has the dims of `like`."""
    operand = edit.constant(np.array(target, np.int64), near=before, hint=f"{source.name}_shape")
    return edit.add("Reshape", [source, operand], before=before, like=like)


def leading_ones(node: ir.Node) -> bool:
    """Return whether a reshape only inserts dims of 1 before the dims of its input."""
    have, got = rank(node.inputs[0]), rank(node.outputs[0])
    if have is None or got is None or got <= have:
        return False
    if node.op_type == "Unsqueeze":
        written = integers(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
        places = None if written is None else {axis % got for axis in written}
        return places == set(range(got - have))
    source, result = dims(node.inputs[0]), dims(node.outputs[0])
    assert source is not None and result is not None, "their ranks are known"  # noqa: PT018
    extra = got - have
    return result[:extra] == (1,) * extra and same_dims(result[extra:], source)
