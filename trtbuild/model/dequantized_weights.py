"""INT8 weights of a large network as the floats that they stand for, in files.

Who runs a Q/DQ network in float dequantizes its weights before the first run, into memory of each session,
or in every run. Written once, they are mapped by all of them.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
import onnx

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, constant_tensor
from trtbuild.model.edits import GraphWriter, remove_unread
from trtbuild.model.mapped_pages import LARGE, give_back
from trtbuild.model.qdq import along_axis
from trtbuild.model.stored_weights import in_file

if TYPE_CHECKING:
    from collections.abc import Hashable

    import onnx_ir as ir

__all__ = ["with_float_weights"]

_KNOWN: weakref.WeakKeyDictionary[ir.TensorProtocol, dict[Hashable, ir.ExternalTensor]] = (
    weakref.WeakKeyDictionary()
)


def with_float_weights(model: ir.Model) -> ir.Model:
    """Return a network in which large constants behind a DequantizeLinear to float32 are dequantized.

    The values are those of the operator to the bit: the product of an integer of 8 bits and a float32 is
    rounded once. Where there is none, `model` itself is returned.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    found = {i: done for i, node in enumerate(model.graph) if (done := _dequantized(node))}
    if not found:
        return model
    copy = model.clone()
    writer = GraphWriter(copy)
    for place, node in enumerate(list(copy.graph)):
        if place in found:
            value = writer.constant(f"{node.outputs[0].name}_float", found[place])
            node.outputs[0].replace_all_uses_with(value)
    remove_unread(copy)
    return copy


def _dequantized(node: ir.Node) -> ir.ExternalTensor | None:
    """What a DequantizeLinear gives; None where that is not known, no float32, small, or an output."""
    if node.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
        return None
    steps, scale, zero = constant_tensor(node.inputs[0]), array(node.inputs[1]), input_at(node, 2)
    known = steps is not None and scale is not None and attribute(node, "block_size", 0) == 0
    known = known and attribute(node, "output_dtype", 0) in (0, onnx.TensorProto.FLOAT)
    if not known or (zero is not None and array(zero) is None):
        return None
    assert steps is not None and scale is not None  # noqa: PT018
    if steps.nbytes < LARGE or steps.dtype.itemsize != 1 or scale.dtype != np.float32:
        return None
    origin = np.zeros((), np.int8) if zero is None else array(zero)
    assert origin is not None
    axis = normal_axis(int(attribute(node, "axis", 1)), len(steps.shape))
    made = _KNOWN.setdefault(steps, {})
    key = (axis, scale.tobytes(), origin.tobytes())
    if key not in made:
        content = steps.numpy().astype(np.float32)
        if origin.any():
            content -= along_axis(origin, axis, content.ndim).astype(np.float32)
        content *= along_axis(scale, axis, content.ndim)
        made[key] = in_file(content, steps.name)
        give_back([steps, made[key]])
    return made[key]
