"""Writes the INT8 weights of a large network, dequantized to float, into files.

A session that runs a Q/DQ network in float dequantizes its weights in memory before the first run, or again
in each run. Weights that are written once are mapped by all sessions.
"""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx

from trtbuild.machine import usable_cpus
from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, constant_tensor
from trtbuild.model.edits import GraphWriter, remove_unread
from trtbuild.model.mapped_pages import LARGE, give_back
from trtbuild.model.qdq import along_axis
from trtbuild.model.stored_weights import in_file_by_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["with_float_weights"]

# Values per block: as many as fit into the cache of a core.
_IN_CACHE = 1 << 17

_KNOWN: weakref.WeakKeyDictionary[ir.TensorProtocol, dict[Hashable, ir.ExternalTensor]] = (
    weakref.WeakKeyDictionary()
)


class _Dequantized(NamedTuple):
    """What a DequantizeLinear does to a constant: ``(steps - origin) * scale``."""

    steps: ir.TensorProtocol
    scale: NDArray[np.float32]
    origin: NDArray[np.generic]
    axis: int

    @property
    def key(self) -> Hashable:
        """Tells this dequantization from others of the same steps."""
        return self.axis, self.scale.tobytes(), self.origin.tobytes()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The dequantized values, some rows at a time; each block is overwritten by the next."""
        content = self.steps.numpy()
        shape, ndim = content.shape, content.ndim
        scale, origin = (
            np.broadcast_to(along_axis(one, self.axis, ndim), shape)
            for one in (self.scale, self.origin)
        )
        rows = max(1, _IN_CACHE * len(content) // max(1, content.size))
        held = np.empty((min(rows, len(content)), *shape[1:]), np.float32)
        for start in range(0, len(content), rows):
            some = slice(start, start + rows)
            block = held[: len(content[some])]
            block[...] = content[some]
            if self.origin.any():
                block -= origin[some].astype(np.float32)
            block *= scale[some]
            yield block

    def in_file(self) -> ir.ExternalTensor:
        """The dequantized values, in a file of this process."""
        dims = tuple(int(size) for size in self.steps.shape.numpy())
        made = in_file_by_blocks(self.blocks(), dims, np.dtype(np.float32), self.steps.name)
        give_back([self.steps])
        return made


def with_float_weights(model: ir.Model) -> ir.Model:
    """Return a network in which large constants and their DequantizeLinear become float32 constants.

    The values equal the operator's to the bit: the product of an 8-bit integer and a float32 is rounded
    once. Without such constants, `model` itself is returned.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    found = {i: one for i, node in enumerate(model.graph) if (one := _dequantized(node))}
    if not found:
        return model
    _write_new(found.values())
    copy = model.clone()
    writer = GraphWriter(copy)
    for place, node in enumerate(list(copy.graph)):
        if place in found:
            content = _KNOWN[found[place].steps][found[place].key]
            value = writer.constant(f"{node.outputs[0].name}_float", content)
            node.outputs[0].replace_all_uses_with(value)
    remove_unread(copy)
    return copy


def _write_new(found: Collection[_Dequantized]) -> None:
    """Write the weights that are not in a file yet, on all cores."""
    new = {
        (id(one.steps), one.key): one
        for one in found
        if one.key not in _KNOWN.setdefault(one.steps, {})
    }
    for one in new.values():
        one.steps.numpy()  # onnx_ir maps a file on first use, which is not safe in several threads
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for one, made in zip(new.values(), pool.map(_Dequantized.in_file, new.values())):
            _KNOWN[one.steps][one.key] = made


def _dequantized(node: ir.Node) -> _Dequantized | None:
    """The operation of a DequantizeLinear; None if it is unknown, not float32, small, or an output."""
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
    return _Dequantized(steps, scale, origin, axis)
