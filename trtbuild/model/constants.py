"""What counts as a constant, and how to read one.

A constant is an initializer that is not also a graph input (callers may override inputs), or the output of a
Constant node. Nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.graph_library import ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = [
    "array",
    "constant_tensor",
    "integers",
    "is_constant",
    "mapped_bytes",
    "single_value",
    "tensor_bytes",
]


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a constant, without reading its data; None for anything else."""
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain != "":
        return None
    return _constant_node_tensor(node)


def _constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    if len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref():
        return None
    match attribute.name:
        case "value" if attribute.type is ir.AttributeType.TENSOR:
            # `as_tensor` would check all members of the tensor protocol, which takes 40 microseconds
            found: ir.TensorProtocol = attribute.value
            return found
        case "value_int" | "value_ints":
            return ir.tensor(np.array(attribute.value, np.int64))
        case "value_float" | "value_floats":
            return ir.tensor(np.array(attribute.value, np.float32))
        case _:
            return None


def is_constant(value: ir.Value | None) -> bool:
    """Return whether `value` is known before the network runs."""
    return constant_tensor(value) is not None


def array(value: ir.Value | None) -> Array | None:
    """Read a constant, as a view of the mapped file if it lies in one; None for anything else."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def integers(value: ir.Value | None) -> tuple[int, ...] | None:
    """Read a constant integer scalar or vector, such as axes or a shape; None for anything else."""
    content = array(value)
    if content is None or content.ndim > 1 or content.dtype.kind not in "iu":
        return None
    return tuple(int(item) for item in content.reshape(-1))


def single_value(value: ir.Value | None) -> Any | None:
    """Return the value of all elements of a constant if they are equal bit for bit, else None."""
    content = array(value)
    if content is None or content.size == 0:
        return None
    flat = content.reshape(-1)
    first = flat[:1]
    if content.size > 1:
        if flat[-1:].tobytes() != first.tobytes():
            return None
        if any(block.tobytes() != first.tobytes() * block.size for block in _blocks(flat)):
            return None
    return flat[0]


def _blocks(flat: Array, size: int = 1 << 16) -> Iterator[Array]:
    for start in range(0, flat.size, size):
        yield flat[start : start + size]


def tensor_bytes(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """Return the bytes that tell a constant from others of its type and dims; of strings, their `repr`.

    A tensor that lies in a file is not copied: the bytes are those of the mapping.
    """
    if tensor.dtype == ir.DataType.STRING:
        return repr(tensor.numpy().tolist()).encode()
    return mapped_bytes(tensor) if isinstance(tensor, ir.ExternalTensor) else tensor.tobytes()


def mapped_bytes(tensor: ir.ExternalTensor) -> memoryview:
    """Return the bytes of a tensor as a view of its mapped file.

    Raises:
        ModelError: the file has become shorter since it was read.
    """
    tensor.numpy()  # maps the file, unless nothing lies there
    if tensor.raw is None:
        return memoryview(b"")
    start = tensor.offset or 0
    return memoryview(tensor.raw)[start : start + (tensor.length or tensor.nbytes)]
