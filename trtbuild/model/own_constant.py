"""Gives a layer a constant of its own, since another layer may share the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["constant_of", "set_constant"]


def constant_of(node: ir.Node, index: int) -> npt.NDArray[np.float64] | None:
    """Return the constant input `index` of `node` as float64; None where there is none."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy().astype(np.float64)


def set_constant(
    graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray, suffix: str
) -> None:
    """Make input `index` of `node` the constant `array`, of the dtype of the node's weight."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    old = node.inputs[index] if index < len(node.inputs) else None
    name = _unused_name(graph, f"{node.name}_{index}_{suffix}")
    tensor = ir.tensor(array.astype(weight.const_value.numpy().dtype), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
    if old is not None and not old.uses() and old.name is not None:
        graph.initializers.pop(old.name, None)


def _unused_name(graph: ir.Graph, base: str) -> str:
    name, number = base, 1
    while name in graph.initializers:
        number += 1
        name = f"{base}_{number}"
    return name
