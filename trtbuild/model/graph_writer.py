"""Adds nodes and constants to a network, each under a name that nothing else has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.model.names import Names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

__all__ = ["GraphWriter"]


class GraphWriter:
    """Changes the main graph of one model, in place."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._names = Names(model)
        self._node_names = {node.name for node in model.graph}

    def fresh(self, hint: str) -> str:
        """Return a tensor name that starts with `hint` and is not taken."""
        return self._names.fresh(hint)

    def constant(self, hint: str, array: np.ndarray) -> ir.Value:
        """Add an initializer."""
        name = self._names.fresh(hint)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def quantize(self, value: ir.Value, parameters: Sequence[ir.Value], hint: str) -> ir.Node:
        """Make the QuantizeLinear of an activation; its place in the graph is the caller's choice."""
        node = self._node("QuantizeLinear", [value, *parameters], hint, {})
        assert parameters[1].dtype is not None
        node.outputs[0].dtype = parameters[1].dtype
        node.outputs[0].shape = value.shape
        return node

    def dequantize(
        self,
        value: ir.Value,
        parameters: Sequence[ir.Value],
        hint: str,
        like: ir.Value,
        axis: int | None,
    ) -> ir.Node:
        """Make a DequantizeLinear whose output has the type and shape of `like`."""
        attributes = {} if axis is None else {"axis": axis}
        node = self._node("DequantizeLinear", [value, *parameters], hint, attributes)
        node.outputs[0].type = like.type
        node.outputs[0].shape = like.shape
        return node

    def _node(
        self, op_type: str, inputs: Sequence[ir.Value], hint: str, attributes: Mapping[str, int]
    ) -> ir.Node:
        output = self._names.fresh(hint)
        base = name = f"{output}_{op_type}"
        number = 1
        while name in self._node_names:
            number += 1
            name = f"{base}_{number}"
        self._node_names.add(name)
        node = ir.node(op_type, list(inputs), attributes=attributes, name=name)
        node.outputs[0].name = output
        return node
