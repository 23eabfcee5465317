"""Replaces a Clip of integers after Q by a float Clip before it, with a zero point of 0.

PyTorch's quantization for x86 uses 7 of 8 bits (``reduce_range``), with a zero point within 0 to 127; its
exporter writes Q, a Clip of integers and DQ. The steps from ``low - zero`` to ``high - zero`` fit into
symmetric int8, so a float Clip at these steps and a pair with zero point 0 give the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import clip_bounds, input_at
from trtbuild.model.constants import array
from trtbuild.model.edits import GraphWriter, remove_unread
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import label, maker

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["clip_in_float"]

_INT8 = np.iinfo(np.int8)


def clip_in_float(model: ir.Model) -> tuple[str, ...]:
    """Move Clips of integers before their Q, in place, if the steps fit into symmetric int8.

    Returns:
        The names of the QuantizeLinear that were changed.
    """
    writer, done = GraphWriter(model), []
    for clip in [node for node in model.graph if node.op_type == "Clip"]:
        quantize = maker(clip.inputs[0], "QuantizeLinear")
        if quantize is not None and _move(clip, quantize, writer):
            done.append(label(quantize))
    if done:
        remove_unread(model)
    return tuple(done)


def _move(clip: ir.Node, quantize: ir.Node, writer: GraphWriter) -> bool:
    source, readers = quantize.inputs[0], list(clip.outputs[0].consumers())
    scale, zero, bounds = array(quantize.inputs[1]), array(input_at(quantize, 2)), clip_bounds(clip)
    known = source is not None and scale is not None and zero is not None and bounds is not None
    if not known or clip.outputs[0].is_graph_output():
        return False
    assert source is not None and scale is not None and zero is not None  # noqa: PT018
    assert bounds is not None
    if (
        scale.size != 1
        or zero.dtype not in (np.int8, np.uint8)
        or not _are_its_own(quantize, clip, readers)
    ):
        return False
    # a missing bound is that of the type
    type_bounds = np.iinfo(zero.dtype)
    low, high = max(bounds[0], type_bounds.min), min(bounds[1], type_bounds.max)
    steps = [bound - int(zero.reshape(-1)[0]) for bound in (low, high)]
    if not _INT8.min <= steps[0] <= steps[1] <= _INT8.max:
        return False
    step = np.float64(scale.reshape(-1)[0])
    limits = [
        writer.constant(f"{label(clip)}_limit", np.asarray(number * step, scale.dtype))
        for number in steps
    ]
    narrow = ir.Node("", "Clip", [source, *limits])
    narrow.outputs[0].name = writer.fresh(f"{source.name}_clipped")
    narrow.outputs[0].type, narrow.outputs[0].shape = source.type, source.shape
    writer.graph.insert_before(quantize, narrow)
    quantize.replace_input_with(0, narrow.outputs[0])
    origin = writer.constant(f"{label(quantize)}_zero", np.zeros(zero.shape, np.int8))
    quantize.outputs[0].dtype = ir.DataType.INT8
    for node in (quantize, *readers):
        node.replace_input_with(2, origin)
    clip.outputs[0].replace_all_uses_with(quantize.outputs[0])
    return True


def _are_its_own(quantize: ir.Node, clip: ir.Node, readers: Sequence[ir.Node]) -> bool:
    """Whether only `clip` reads the integers of `quantize`, and only DQs of its scale read the result."""
    if list(quantize.outputs[0].consumers()) != [clip] or quantize.outputs[0].is_graph_output():
        return False
    return all(
        reader.op_type == "DequantizeLinear"
        and all(
            np.array_equal(_content(quantize, place), _content(reader, place)) for place in (1, 2)
        )
        for reader in readers
    )


def _content(node: ir.Node, place: int) -> np.ndarray:
    found = array(input_at(node, place))
    return np.empty(0) if found is None else found
