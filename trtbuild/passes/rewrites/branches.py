"""Inlines an If with a constant condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute
from trtbuild.model.constants import single_value
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["InlineConstantBranch"]


class InlineConstantBranch(Pass):
    """Replace an If with a constant condition by the branch that is taken.

    Pattern: If whose condition is constant.
    Conditions: none; names of the branch are made unique, and an output that needs its own node gets an
        Identity.
    Effect: the nodes and initializers of the branch are in the graph around it.
    Source: MNN ``ConstantFolding``.
    """

    name = "inline_constant_branch"
    anchors = frozenset({"If"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Inline the branch that `node` takes."""
        condition = single_value(node.inputs[0])
        if condition is None:
            return None
        taken = "then_branch" if condition else "else_branch"
        branch: ir.Graph = attribute(node, taken)
        results = list(branch.outputs)
        branch.outputs.clear()
        moved = _move_constants(branch, node, edit)
        for inner in list(branch):
            branch.remove(inner)
            for output in inner.outputs:
                if output.name:
                    output.name = edit.names.fresh(output.name)
            edit.insert(inner, before=node)
        for output, result in zip(node.outputs, results):
            edit.stand_in(node, output, moved.get(result, result))
        edit.drop(node)
        return f"always takes its {taken}"


def _move_constants(branch: ir.Graph, node: ir.Node, edit: Editor) -> dict[ir.Value, ir.Value]:
    """Move the initializers of `branch` into the graph around it; return old -> new."""
    moved: dict[ir.Value, ir.Value] = {}
    for name, value in list(branch.initializers.items()):
        tensor = value.const_value
        if tensor is None:
            continue
        moved[value] = edit.initializer(tensor, near=node, hint=name)
        value.replace_all_uses_with(moved[value])
        del branch.initializers[name]
    return moved
