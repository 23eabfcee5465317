"""Removes operators that return their input unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, dropout_is_off
from trtbuild.model.constants import integers
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from trtbuild.passes.editor import Editor

__all__ = ["RemoveDropout", "RemoveIdentity"]


class RemoveIdentity(Pass):
    """Remove operators that return their input unchanged.

    Pattern: Identity; Cast to the type that the tensor has; Concat, Split, Sum, Max, Min or Mean of one
        tensor; a pair of Casts that restores every value (int32 -> int64 -> int32); SequenceAt of a
        SequenceConstruct at a constant position.
    Conditions: an output keeps a node that makes it; an intermediate type can hold every value of the
        first one.
    Effect: readers read the input.
    Source: MNN ``RemoveUnusefulOp``. MNN, which has no int64, also drops a lone int32 <-> int64 Cast; in ONNX
        that changes types, so it stays.
    """

    name = "remove_identity"
    anchors = frozenset(
        {"Identity", "Cast", "Concat", "Split", "Sum", "Max", "Min", "Mean", "SequenceAt"}
    )

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it returns its input."""
        source = _handed_on(node)
        if source is None:
            return None
        edit.bypass(node, node.outputs[0], source)
        return f"readers read '{source.name}'"


def _handed_on(node: ir.Node) -> ir.Value | None:
    match node.op_type:
        case "Cast":
            return _exact_cast(node)
        case "SequenceAt":
            return _sequence_element(node)
        case "Split":
            return node.inputs[0] if len(node.outputs) == 1 else None
        case "Identity":
            return node.inputs[0]
        case _:
            return node.inputs[0] if len(node.inputs) == 1 else None


def _exact_cast(node: ir.Node) -> ir.Value | None:
    target = ir.DataType(attribute(node, "to"))
    source = node.inputs[0]
    if source is None or source.dtype is None:
        return None
    if source.dtype == target:
        return source
    first = maker(source, "Cast")
    original = None if first is None else first.inputs[0]
    if original is None or original.dtype != target:
        return None
    if not _holds(source.dtype, target):
        raise Declined(f"{target} -> {source.dtype} -> {target} rounds")
    return original


def _holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether `wide` can hold every value of `narrow`, including NaNs and infinities."""
    if narrow == ir.DataType.BOOL:
        return wide.is_integer() or wide.is_floating_point()
    try:
        return bool(np.can_cast(narrow.numpy(), wide.numpy(), "safe"))
    except TypeError:
        return False


def _sequence_element(node: ir.Node) -> ir.Value | None:
    sequence = maker(node.inputs[0], "SequenceConstruct")
    if sequence is None:
        return None
    place = integers(node.inputs[1])
    if place is None or len(place) != 1:
        raise Declined("the place in the sequence is not constant")
    if not -len(sequence.inputs) <= place[0] < len(sequence.inputs):
        raise Declined(f"the sequence has no element {place[0]}")
    return sequence.inputs[place[0]]


class RemoveDropout(Pass):
    """Remove Dropout at inference.

    Pattern: Dropout without ``training_mode``, or with constant false.
    Conditions: a mask that is read is bool.
    Effect: readers read the input; a mask that is read becomes all true.
    Source: MNN ``RemoveDropout``.
    """

    name = "remove_dropout"
    anchors = frozenset({"Dropout"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it drops nothing."""
        if not dropout_is_off(node):
            raise Declined("it may be in training mode")
        source = node.inputs[0]
        if source is None:
            return None
        masks = [out for out in node.outputs[1:] if out.uses() or out.is_graph_output()]
        if any(mask.dtype != ir.DataType.BOOL for mask in masks):
            raise Declined("its mask is read, and is not bool")
        edit.require_bypass(node, node.outputs[0], source)
        for mask in masks:
            shape = edit.add("Shape", [source], before=node)
            true = {"value": ir.tensor([True])}
            edit.forward(mask, edit.add("ConstantOfShape", [shape], true, before=node, like=mask))
        edit.bypass(node, node.outputs[0], source)
        return f"readers read '{source.name}'"
