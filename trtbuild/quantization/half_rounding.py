"""Simulates an FP16 network in FP32: rounds to FP16 after every node.

ONNX Runtime has few FP16 kernels on CPUs: it computes such nodes in FP32 and passes FP32 from one to the
next, so only constants are rounded. (For a chain of twelve products and Tanh, its outputs are 124 dB from a
network with only the weights rounded, and 60 dB from one that rounds after every node.) It keeps Casts that
are in the network, so this module adds one after every node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.edits import GraphWriter, add_initializer
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import bodies

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["as_rounding_floats"]

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

# Attributes that name the type of a result.
_TYPE_ATTRIBUTES = ("dtype", "output_dtype", "precision")


def as_rounding_floats(model: ir.Model) -> ir.Model:
    """Return a network that computes in FP32, and rounds the result of every FP16 node to FP16.

    Like an FP16 kernel, this sums in FP32 and rounds the result once. The output of a DequantizeLinear is
    not rounded: INT8 kernels compute on its integers and scale.

    Args:
        model: a network with a type on every value, as `trtbuild.quantization.half.to_half` returns. A
            network with FP16 in its inputs, its outputs or in bodies of nodes is returned unchanged.
    """
    if any(value.dtype == _HALF for value in _seen_outside(model)):
        return model
    model = model.clone()
    graph, writer = model.graph, GraphWriter(model)
    for value in list(graph.initializers.values()):
        if value.dtype == _HALF:
            assert value.const_value is not None
            wide = value.const_value.numpy().astype(np.float32)
            name = writer.fresh(f"{value.name}_fp32")
            ir.convenience.replace_all_uses_with(value, add_initializer(graph, name, wide))
            del graph.initializers[value.name or ""]
    for node in list(graph):
        _widen_attributes(node)
        for output in node.outputs:
            if output.dtype == _HALF:
                _round(graph, writer, node, output)
    return model


def _seen_outside(model: ir.Model) -> Iterable[ir.Value]:
    yield from (*model.graph.inputs, *model.graph.outputs)
    for node in model.graph:
        for body in bodies(node):
            yield from body.inputs
            yield from body.initializers.values()
            yield from (value for inner in body for value in inner.outputs)


def _widen_attributes(node: ir.Node) -> None:
    for name, given in list(node.attributes.items()):
        if given.type == ir.AttributeType.TENSOR and given.value.dtype == _HALF:
            wide = ir.tensor(given.value.numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, wide)
        elif name in _TYPE_ATTRIBUTES and given.value == int(_HALF):
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))


def _round(graph: ir.Graph, writer: GraphWriter, node: ir.Node, output: ir.Value) -> None:
    """Let the readers of an FP16 value read it as FP32, rounded to FP16."""
    if node.op_type == "DequantizeLinear":
        output.type = ir.TensorType(_FLOAT)
        return
    readers = list(output.uses())
    last, narrow = node, output
    if node.op_type != "Cast":
        output.type = ir.TensorType(_FLOAT)
        last = _cast(writer, output, _HALF)
        graph.insert_after(node, last)
        narrow = last.outputs[0]
    widened = _cast(writer, narrow, _FLOAT)
    graph.insert_after(last, widened)
    for reader, index in readers:
        reader.replace_input_with(index, widened.outputs[0])


def _cast(writer: GraphWriter, value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(dtype)})
    output = node.outputs[0]
    output.name = node.name = writer.fresh(f"{value.name}_rounded")
    output.dtype, output.shape = dtype, value.shape
    return node
