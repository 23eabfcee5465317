"""A network without the bulk of its weights: what ONNX's C++ tools can take at any size.

Large initialisers become inputs of the graph, so that a protobuf stays far below its 2 GB limit and
mapped weights stay mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.model.bodies import all_graphs

if TYPE_CHECKING:
    import onnx

__all__ = ["LightModel", "lighten"]

_LARGE = 1024
"""Bytes. Shapes, axes and scalars stay inside, where shape inference needs them."""


@dataclass(frozen=True)
class LightModel:
    """A network as a protobuf, with its large weights beside it.

    Attributes:
        proto: the network; each of `weights` is an input of its graph.
        weights: name -> tensor.
    """

    proto: onnx.ModelProto
    weights: dict[str, ir.TensorProtocol]


def lighten(model: ir.Model) -> LightModel:
    """Serialise `model` without its large weights.

    They are taken out while that lasts, and put back: copying a graph costs more than writing it.
    """
    weights: dict[str, ir.Value] = {}
    held = [(graph, list(graph.initializers.values())) for graph in all_graphs(model.graph)]
    inputs = len(model.graph.inputs)
    for graph, values in held:
        for value in values:
            name, tensor = value.name or "", value.const_value
            if tensor is not None and name not in weights and _goes_aside(value, tensor):
                weights[name] = value
                del graph.initializers[name]
    tensors = {name: value.const_value for name, value in weights.items()}
    model.graph.inputs.extend(weights.values())
    try:
        proto = ir.to_proto(model)
    finally:
        model.graph.inputs[inputs:] = []  # a slice assignment is what unmarks them as inputs
        for graph, values in held:
            _put_back(graph, values)
    return LightModel(proto, {name: item for name, item in tensors.items() if item is not None})


def _goes_aside(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    if value.is_graph_input() or value.is_graph_output():
        return False
    if tensor.nbytes <= _LARGE:
        if isinstance(tensor, ir.ExternalTensor):  # its values decide shapes, so they go inside
            content = tensor.numpy().copy()
            value.const_value = ir.Tensor(content, dtype=tensor.dtype, name=value.name)
        return False
    if tensor.dtype.numpy().kind not in "biuf":
        return False  # ONNX Runtime takes no arrays of it
    value.type = ir.TensorType(tensor.dtype)
    value.shape = ir.Shape(tensor.shape.numpy())
    return True


def _put_back(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Restore the initialisers of `graph`, in their order."""
    if len(graph.initializers) == len(values):
        return
    for name in list(graph.initializers):
        del graph.initializers[name]
    for value in values:
        graph.initializers.add(value)
