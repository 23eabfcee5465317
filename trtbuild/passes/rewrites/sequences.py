"""Writes lists of tensors as tensors: TensorRT has no lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, single_value
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.wording import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertSplitToSequence"]

_SIZES_AS_OPERAND = 13
"""Opset from which on the sizes of Split are an input."""


class _Cut(NamedTuple):
    """How a tensor is cut: the sizes of its pieces along an axis that they may lose."""

    axis: int
    sizes: tuple[int, ...]
    loses_axis: bool


class ConvertSplitToSequence(Pass):
    """Write a list of pieces whose positions are constants as the outputs of a Split.

    Pattern: ``SplitToSequence``, read by ``SequenceAt`` and ``SequenceLength``.
    Conditions: the sizes of the pieces are constants, or follow from the known length of the axis; the
        positions are constants; nothing else reads the list.
    Effect: one ``Split`` whose outputs stand for the pieces, each with a Squeeze where pieces lose the axis.
    Source: PyTorch's ``chunk``, ``split`` and ``unbind``, exported without its optimizer.
    """

    name = "convert_split_to_sequence"
    anchors = frozenset({"SplitToSequence"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node` and all that reads its list."""
        cut = _cut_of(node)
        places = _places(node, len(cut.sizes))
        pieces = _split(node, cut, edit)
        for reader, place in places.items():
            value = pieces[place] if place is not None else None
            if value is None:
                edit.become_constant(reader.outputs[0], np.array(len(cut.sizes), np.int64))
                continue
            if cut.loses_axis:
                value = edit.add_with_axes("Squeeze", value, [cut.axis], before=reader)
            edit.stand_in(reader, reader.outputs[0], value)
            edit.drop(reader)
        edit.drop(node)
        return f"became a Split into {counted(len(cut.sizes), 'piece')}"


def _cut_of(node: ir.Node) -> _Cut:
    """The pieces of a SplitToSequence: of one element, of one size up to the last, or of given sizes."""
    source, operand = node.inputs[0], input_at(node, 1)
    known = None if source is None else dims(source)
    if known is None:
        raise Declined("the rank of its input is not known")
    if not known:
        raise Declined("its input is a scalar")
    axis = normal_axis(int(attribute(node, "axis", 0)), len(known))
    length = known[axis]
    size = np.array(1) if operand is None else array(operand)
    if size is None:
        raise Declined("the sizes of its pieces are computed")
    if size.ndim:
        return _Cut(axis, tuple(int(one) for one in size), loses_axis=False)
    if not isinstance(length, int):
        raise Declined(
            f"the length of axis {axis} is not known, so neither is the number of pieces"
        )
    if length < 1 or size < 1:
        raise Declined(f"it cuts {length} elements into pieces of {size}")
    whole, rest = divmod(length, int(size))
    sizes = (int(size),) * whole + ((rest,) if rest else ())
    return _Cut(axis, sizes, operand is None and not attribute(node, "keepdims", 1))


def _places(node: ir.Node, count: int) -> dict[ir.Node, int | None]:
    """Each reader of the list with the piece that it takes; None for the number of pieces."""
    pieces = node.outputs[0]
    if pieces.is_graph_output():
        raise Declined("its list is an output")
    found: dict[ir.Node, int | None] = {}
    for use in pieces.uses():
        reader = use.node
        if reader.op_type == "SequenceLength":
            found[reader] = None
            continue
        if reader.op_type != "SequenceAt":
            raise Declined(f"a {reader.op_type} reads its list, too")
        place = single_value(reader.inputs[1])
        if place is None:
            raise Declined(f"the position that '{label(reader)}' reads is computed")
        if not -count <= place < count:
            raise Declined(f"'{label(reader)}' reads piece {place:g} of {count}")
        found[reader] = int(place) % count
    return found


def _split(node: ir.Node, cut: _Cut, edit: Editor) -> list[ir.Value]:
    source = node.inputs[0]
    assert source is not None, "its rank is known"
    sizes, operands = list(cut.sizes), [source]
    attributes: dict[str, object] = {"axis": cut.axis}
    if edit.opset < _SIZES_AS_OPERAND:
        attributes["split"] = sizes
    else:
        hint = f"{label(node)}_sizes"
        operands.append(edit.constant(np.array(sizes, np.int64), near=node, hint=hint))
    first = edit.add("Split", operands, attributes, before=node, outputs=len(sizes))
    made = first.producer()
    assert made is not None, "it was just made"
    return list(made.outputs)
