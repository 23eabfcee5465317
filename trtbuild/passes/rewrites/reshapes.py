"""Removes and merges Reshapes that change nothing, cancel or repeat; also channel shuffles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, permutation
from trtbuild.model.constants import integers
from trtbuild.model.operators import BROADCASTING
from trtbuild.model.shapes import dims, rank, same_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.reshaping import (
    RESHAPES,
    add_reshape,
    equal_ancestor,
    leading_ones,
    reshape_target,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "CancelChannelShuffles",
    "MergeReshapes",
    "RemoveFlattenAfterGemm",
    "RemoveFlattenAfterGlobalPool",
    "RemoveReshapeAfterGlobalPool",
    "RemoveReshapeBeforeBinary",
]


_GLOBAL_POOLS = ("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")


class RemoveReshapeBeforeBinary(Pass):
    """Let broadcasting add leading dims of 1, instead of a Reshape.

    Pattern: Reshape or Unsqueeze before an operator that broadcasts.
    Conditions: it only inserts ones before the dims, and another operand has the full rank.
        ``[N, C] -> [N, C, 1, 1]`` decides which dims broadcast and stays: ONNX aligns right.
    Effect: the operator reads the tensor before the Reshape.
    Source: NCNN ``eliminate_reshape_before_binaryop``.
    """

    name = "remove_reshape_before_binary"
    anchors = BROADCASTING
    needs = frozenset({"Reshape", "Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass each reshape that only adds leading ones."""
        done = []
        for place, operand in enumerate(node.inputs):
            reshape = maker(operand, "Reshape", "Unsqueeze")
            if reshape is None or reshape.inputs[0] is None or operand is None:
                continue
            if not leading_ones(reshape):
                edit.decline(node, f"'{operand.name}' decides which dims broadcast")
            elif not _another_has_rank(node, place):
                edit.decline(node, f"'{operand.name}' gives the result its rank")
            else:
                edit.rewire(node, place, reshape.inputs[0])
                done.append(reshape.name or "")
        return f"broadcasts without {', '.join(done)}" if done else None


def _another_has_rank(node: ir.Node, place: int) -> bool:
    """Whether another operand has at least the rank of operand `place`."""
    full = rank(node.inputs[place])
    others = [rank(item) for index, item in enumerate(node.inputs) if index != place]
    return full is not None and any(other is not None and other >= full for other in others)


def _return_to_pooling(node: ir.Node, edit: Editor) -> str | None:
    """Bypass a chain of reshapes that restores the dims of a global pooling's result."""
    source = equal_ancestor(node)
    if source is None or maker(source, *_GLOBAL_POOLS) is None:
        return None
    edit.bypass(node, node.outputs[0], source)
    return f"came back to the dims of '{source.name}'"


class RemoveReshapeAfterGlobalPool(Pass):
    """Remove Reshapes after global pooling that keep or restore its dims [N, C, 1, 1].

    Pattern: global pooling, then a Reshape or Unsqueeze, or reshapes to ``[N, C]`` and back.
    Conditions: the final dims are known to be those of the pooling. ``[N, C]`` as an output, or
        before a Gemm, stays.
    Effect: readers read the result of the pooling.
    Source: NCNN ``eliminate_reshape_after_global_pooling``.
    """

    name = "remove_reshape_after_global_pool"
    anchors = frozenset({"Reshape", "Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass the chain that ends in `node`."""
        return _return_to_pooling(node, edit)


class RemoveFlattenAfterGlobalPool(Pass):
    """Remove a Flatten after global pooling whose result becomes [N, C, 1, 1] again.

    Pattern: global pooling, then ``Flatten -> Reshape | Unsqueeze``.
    Conditions: as for Reshape; a Flatten before a Gemm makes the matrix that it needs and stays.
    Effect: readers read the result of the pooling.
    Source: NCNN ``eliminate_flatten_after_global_pooling``.
    """

    name = "remove_flatten_after_global_pool"
    anchors = frozenset({"Reshape", "Unsqueeze"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass the chain that ends in `node`, if a Flatten is in it."""
        if maker(node.inputs[0], "Flatten") is None:
            return None
        return _return_to_pooling(node, edit)


class RemoveFlattenAfterGemm(Pass):
    """Remove a Flatten of a matrix.

    Pattern: ``Gemm | MatMul (-> Add) -> Flatten``.
    Conditions: rank 2 and axis 1. After a MatMul of rank 3, or with axis 0 or 2, it changes the dims and
        stays.
    Effect: readers read the matrix.
    Source: NCNN ``eliminate_flatten_after_innerproduct``.
    """

    name = "remove_flatten_after_gemm"
    anchors = frozenset({"Flatten"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if a matrix product made its input."""
        source = node.inputs[0]
        product = maker(source, "Add", "Gemm", "MatMul")
        if source is None or product is None:
            return None
        if rank(source) != 2 or attribute(node, "axis", 1) not in (1, -1):
            raise Declined("it makes other dims")
        edit.bypass(node, node.outputs[0], source)
        return f"'{source.name}' is a matrix already"


class MergeReshapes(Pass):
    """Merge a chain of reshapes into one Reshape.

    Pattern: Reshape, Flatten, Squeeze or Unsqueeze after another of them.
    Conditions: the tensor between them has no other reader; the final dims can be written with
        constants, a 0 for a copied dim, and at most one -1. A 0 in the last target copies a dim
        of the tensor between, and is resolved against it.
    Effect: only the last one, or none if the chain restores the dims at its start.
    Source: MNN ``RemoveDuplicateReshape``.
    """

    name = "merge_reshapes"
    anchors = frozenset(RESHAPES)

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Let one Reshape replace the chain that ends in `node`."""
        middle = node.inputs[0]
        first = maker(middle, *RESHAPES)
        if first is None or middle is None or first.inputs[0] is None:
            return None
        start = equal_ancestor(node)
        if start is not None:
            edit.bypass(node, node.outputs[0], start)
            return f"came back to the dims of '{start.name}'"
        if {first.op_type, node.op_type} <= {"Squeeze", "Unsqueeze"}:
            return None
        require_private(middle, node)
        target = reshape_target(dims(first.inputs[0]), dims(node.outputs[0])) or _own(node)
        if target is None:
            raise Declined("its dims cannot be expressed without the tensor between")
        output = node.outputs[0]
        result = add_reshape(first.inputs[0], target, edit, before=node, like=output)
        edit.forward(output, result)
        edit.drop(node)
        return f"took in {first.op_type} '{first.name}'"


def _own(node: ir.Node) -> tuple[int, ...] | None:
    """Return the constant target of a Reshape that copies no dims of its input, else None."""
    target = integers(node.inputs[1]) if node.op_type == "Reshape" else None
    return None if target is None or 0 in target else target


@dataclass(frozen=True)
class _Shuffle:
    """Channel shuffle: ``[N, C, ..] -> [N, rows, columns, ..]``, swap rows and columns, and back."""

    source: ir.Value
    rows: int
    columns: int


class CancelChannelShuffles(Pass):
    """Remove two channel shuffles of which one undoes the other.

    Pattern: two consecutive shuffles of C channels, in ``g`` and in ``C / g`` groups.
    Conditions: the groups of one are the columns of the other; two equal shuffles with ``g * g != C``
        do not cancel. ONNX has no ShuffleChannel: a lone shuffle stays.
    Effect: readers read the tensor before both.
    Source: MNN ``TransformShuffleChannel``; Zhang et al. 2018 (ShuffleNet).
    """

    name = "cancel_channel_shuffles"
    anchors = frozenset({"Reshape"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass two shuffles, the second of which ends in `node`."""
        second = _read(node)
        first = None if second is None else _read(maker(second.source, "Reshape"))
        if first is None or second is None:
            return None
        if (first.rows, first.columns) != (second.columns, second.rows):
            raise Declined("the second shuffle does not undo the first")
        edit.bypass(node, node.outputs[0], first.source)
        return f"undid {first.rows} x {first.columns}"


def _read(last: ir.Node | None) -> _Shuffle | None:
    """Read the shuffle that ends in a Reshape; None if there is none."""
    transpose = None if last is None else maker(last.inputs[0], "Transpose")
    first = None if transpose is None else maker(transpose.inputs[0], "Reshape")
    if last is None or transpose is None or first is None or first.inputs[0] is None:
        return None
    outer, grouped = dims(first.inputs[0]), dims(first.outputs[0])
    perm = permutation(transpose, rank(first.outputs[0]))
    if outer is None or grouped is None or not same_dims(outer, dims(last.outputs[0])):
        return None
    if len(grouped) < 3 or perm != (0, 2, 1, *range(3, len(grouped))):
        return None
    rows, columns = grouped[1], grouped[2]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    if not same_dims(outer, (grouped[0], rows * columns, *grouped[3:])):
        return None
    return _Shuffle(first.inputs[0], rows, columns)
