"""Removes Slices that take everything, and Slices or Splits of a Concat that return its pieces."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import integers
from trtbuild.model.shapes import Dim, dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["CancelConcatSlice", "RemoveFullSlice"]

_NO_END = 2**31 - 1
"""INT32_MAX, which exporters write for "to the end"; a smaller end may cut off a symbolic dim."""


@dataclass(frozen=True)
class _Cut:
    """One axis of a Slice with constant bounds."""

    axis: int
    start: int
    end: int
    step: int

    def whole(self, size: Dim) -> bool:
        """Whether the cut takes the whole axis of this size."""
        if self.step != 1:
            return False
        if isinstance(size, int):
            return self.bounds(size) == (0, size)
        return self.start == 0 and self.end >= _NO_END

    def bounds(self, size: int) -> tuple[int, int]:
        """Return the first index and the end, clamped as in ONNX."""
        first, last = (
            min(max(place + size if place < 0 else place, 0), size)
            for place in (self.start, self.end)
        )
        return first, max(first, last)


def _cuts(node: ir.Node, rank: int) -> list[_Cut] | None:
    """Read the constant bounds of a Slice, from attributes or operands; None if they are not constant."""
    if "starts" in node.attributes:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        over, steps = attribute(node, "axes"), None
    else:
        starts, ends = integers(input_at(node, 1)), integers(input_at(node, 2))
        over, steps = (_optional(input_at(node, place)) for place in (3, 4))
    if starts is None or ends is None or over == () or steps == ():
        return None
    over = over or range(len(starts))
    steps = steps or (1,) * len(starts)
    return [
        _Cut(normal_axis(axis, rank), start, end, step)
        for axis, start, end, step in zip(over, starts, ends, steps)
    ]


def _optional(operand: ir.Value | None) -> tuple[int, ...] | None:
    """Return None for an omitted operand, and an empty tuple for one that is not constant."""
    if operand is None:
        return None
    return integers(operand) or ()


class RemoveFullSlice(Pass):
    """Remove a Slice that takes everything.

    Pattern: Slice with constant bounds.
    Conditions: on every axis step 1, from the first to the last element; for a symbolic dim the end
        is at least INT32_MAX.
    Effect: readers read the input.
    Source: ONNX Runtime ``Slice Elimination``.
    """

    name = "remove_full_slice"
    anchors = frozenset({"Slice"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Bypass `node` if it takes everything."""
        source, known = node.inputs[0], dims(node.inputs[0])
        cuts = None if known is None else _cuts(node, len(known))
        if source is None or known is None or cuts is None:
            raise Declined("its bounds or the rank are not constant")
        if not all(cut.whole(known[cut.axis]) for cut in cuts):
            return None
        edit.bypass(node, node.outputs[0], source)
        return f"takes all of '{source.name}'"


class CancelConcatSlice(Pass):
    """Read the pieces of a Concat instead of cutting them out of its result.

    Pattern: ``Concat -> Split``, or ``Concat -> Slice``, along the axis of the Concat.
    Conditions: each output is exactly one of the pieces, whose sizes are known.
    Effect: readers read the pieces; the Concat stays if it has other readers.
    Source: ONNX Runtime ``Concat Slice Elimination``.
    """

    name = "cancel_concat_slice"
    anchors = frozenset({"Slice", "Split"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Let the readers of `node` read the pieces."""
        concat = maker(node.inputs[0], "Concat")
        if concat is None or len(concat.inputs) < 2:
            return None
        found = _pieces_cut(node, concat)
        for output, piece in zip(node.outputs, found):
            edit.require_bypass(node, output, piece)
        for output, piece in zip(node.outputs, found):
            edit.bypass(node, output, piece)
        return f"reads the pieces of '{concat.name}'"


def _pieces_cut(node: ir.Node, concat: ir.Node) -> list[ir.Value]:
    """Return, for each output of `node`, the piece of `concat` that it equals.

    Raises:
        Declined: an output is not exactly one piece.
    """
    known = dims(node.inputs[0])
    if known is None:
        raise Declined("the rank is not known")
    axis = normal_axis(int(attribute(concat, "axis")), len(known))
    pieces = _pieces(concat, axis)
    ranges = _split_ranges if node.op_type == "Split" else _slice_range
    wanted = ranges(node, axis, known)
    if wanted is None:
        raise Declined("it does not cut along the axis of the Concat, at known places")
    found = [pieces[bounds] for bounds in wanted if bounds in pieces]
    if len(found) < len(wanted):
        raise Declined("it cuts through the pieces")
    if len(set(found)) < len(found):
        raise Declined("two of the pieces are one tensor")
    return found


def _pieces(concat: ir.Node, axis: int) -> dict[tuple[int, int], ir.Value]:
    sizes = [(dims(piece) or ())[axis : axis + 1] for piece in concat.inputs]
    numbers = [size[0] for size in sizes if size and isinstance(size[0], int) and size[0] > 0]
    if len(numbers) != len(concat.inputs):
        raise Declined("the sizes of the pieces are not known")
    ends = list(accumulate(numbers))
    return {
        (end - size, end): piece
        for size, end, piece in zip(numbers, ends, concat.inputs)
        if piece is not None
    }


def _split_ranges(node: ir.Node, axis: int, known: tuple[Dim, ...]) -> list[tuple[int, int]] | None:
    if normal_axis(int(attribute(node, "axis", 0)), len(known)) != axis:
        return None
    sizes = [(dims(output) or ())[axis : axis + 1] for output in node.outputs]
    numbers = [size[0] for size in sizes if size and isinstance(size[0], int)]
    if len(numbers) != len(node.outputs):
        return None
    return [(end - size, end) for size, end in zip(numbers, accumulate(numbers))]


def _slice_range(node: ir.Node, axis: int, known: tuple[Dim, ...]) -> list[tuple[int, int]] | None:
    cuts = _cuts(node, len(known))
    size = known[axis]
    if cuts is None or not isinstance(size, int):
        return None
    others = [cut for cut in cuts if cut.axis != axis]
    along = [cut for cut in cuts if cut.axis == axis]
    if len(along) != 1 or along[0].step != 1:
        return None
    if not all(cut.whole(known[cut.axis]) for cut in others):
        return None
    return [along[0].bounds(size)]
