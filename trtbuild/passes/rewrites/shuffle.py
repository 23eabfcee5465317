"""Channel shuffles, which ONNX writes as Reshape, Transpose, Reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.attributes import permutation
from trtbuild.model.shapes import dims, rank, same_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["CancelChannelShuffles"]


@dataclass(frozen=True)
class _Shuffle:
    """``[N, C, ..] -> [N, rows, columns, ..]``, the two swapped, and back."""

    source: ir.Value
    rows: int
    columns: int


class CancelChannelShuffles(Pass):
    """Remove a channel shuffle and the one that undoes it.

    Pattern: two shuffles of C channels behind each other, in ``g`` and in ``C / g`` groups.
    Conditions: the groups of one are the columns of the other; equal shuffles with ``g * g != C``
        are no identity. ONNX has no ShuffleChannel: a lone shuffle is in its form already and stays.
    Effect: readers read the tensor in front of both.
    Source: MNN ``TransformShuffleChannel``; Zhang et al. 2018 (ShuffleNet).
    """

    name = "cancel_channel_shuffles"
    anchors = frozenset({"Reshape"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass two shuffles of which `node` is the end."""
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
