"""A network without the bulk of its weights: what ONNX's C++ tools can take at any size.

Large initialisers become inputs of the graph, so that a protobuf stays far below its 2 GB limit and
mapped weights stay mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.graph.bodies import all_graphs

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
    """Take the large weights out of a copy of `model`, which is not changed."""
    copy = model.clone()
    weights: dict[str, ir.TensorProtocol] = {}
    for graph in all_graphs(copy.graph):
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or value.is_graph_input() or name in weights:
                continue
            if tensor.nbytes > _LARGE and not value.is_graph_output():
                weights[name] = tensor
                del graph.initializers[name]
                value.type = ir.TensorType(tensor.dtype)
                value.shape = ir.Shape(tensor.shape.numpy())
                copy.graph.inputs.append(value)
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=name)
    return LightModel(ir.to_proto(copy), weights)
