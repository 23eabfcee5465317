"""Put QuantizeLinear / DequantizeLinear into a network, as a plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from trtbuild.quantization.plan import GRAPH_OUTPUT, Consumer, Plan, QuantParams, WeightPoint
from trtbuild.quantization.weights import quantize_weight, weight_scales

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["insert"]

# The first opset whose QuantizeLinear takes float16 scales.
HALF_SCALE_OPSET = 19


def insert(model: ir.Model, plan: Plan) -> ir.Model:
    """Answer a copy of `model` with one Q/DQ pair per quantized tensor, and INT8 weights behind DQ.

    Readers that the plan does not name keep reading floats. ``axis`` is always written: TensorRT's
    parser and ONNX differ in its default.
    """
    model = model.clone()
    nodes = {node.name: node for node in model.graph}
    values = {value.name: value for value in _activations(model)}
    for name, consumers in plan.consumers.items():
        _quantize_activation(model.graph, values[name], consumers, plan.params[name], nodes)
    done: dict[tuple[str, int | None], ir.Value] = {}
    for point in plan.weights:
        _quantize_weight_input(model.graph, nodes[point.node], point, done)
    for name in sorted(plan.int32_biases):
        _quantize_bias(model.graph, nodes[name])
    _remove_unread_weights(model.graph)
    return model


def _activations(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _quantize_activation(
    graph: ir.Graph,
    value: ir.Value,
    consumers: Iterable[Consumer],
    params: QuantParams,
    nodes: dict[str | None, ir.Node],
) -> None:
    name = value.name or ""
    scale = _initializer(graph, f"{name}_scale", _scale_array(params.scale, value))
    zero = _initializer(
        graph, f"{name}_zero_point", np.asarray(params.zero_point, params.dtype.numpy())
    )
    quantize = _node("QuantizeLinear", [value, scale, zero], f"{name}_quantized", {})
    quantize.outputs[0].dtype = params.dtype
    dequantize = _node(
        "DequantizeLinear", [quantize.outputs[0], scale, zero], f"{name}_dequantized", {}
    )
    for output in (quantize.outputs[0], dequantize.outputs[0]):
        output.shape = value.shape
    if value.dtype is not None:
        dequantize.outputs[0].dtype = value.dtype
    _place_behind(graph, value, [quantize, dequantize])
    for consumer in sorted(consumers):
        if consumer.node == GRAPH_OUTPUT:
            _take_over_output(graph, value, dequantize.outputs[0])
        else:
            nodes[consumer.node].replace_input_with(consumer.index, dequantize.outputs[0])


def _quantize_weight_input(
    graph: ir.Graph, node: ir.Node, point: WeightPoint, done: dict[tuple[str, int | None], ir.Value]
) -> None:
    weight = node.inputs[point.index]
    assert weight is not None
    assert weight.const_value is not None
    name = weight.name or ""
    if (name, point.axis) not in done:
        array = weight.const_value.numpy()
        scales = weight_scales(array, point.axis, name)
        stem = f"{name}_axis{point.axis}" if any(known == name for known, _ in done) else name
        integers = _initializer(graph, f"{stem}_int8", quantize_weight(array, scales, point.axis))
        scale = _initializer(graph, f"{stem}_scale", _scale_array(scales, weight))
        zero = _initializer(graph, f"{stem}_zero_point", np.zeros(scales.shape, np.int8))
        axis = {} if point.axis is None else {"axis": point.axis}
        dequantize = _node("DequantizeLinear", [integers, scale, zero], f"{stem}_dequantized", axis)
        dequantize.outputs[0].shape = weight.shape
        dequantize.outputs[0].type = weight.type
        graph.insert_before(graph[0], dequantize)
        done[name, point.axis] = dequantize.outputs[0]
    node.replace_input_with(point.index, done[name, point.axis])


def _quantize_bias(graph: ir.Graph, node: ir.Node) -> None:
    bias = node.inputs[2]
    assert bias is not None
    assert bias.const_value is not None
    scales = np.atleast_1d(_scale_behind(node, 0) * _scale_behind(node, 1)).astype(np.float32)
    values = bias.const_value.numpy().astype(np.float64)
    scales = np.broadcast_to(scales, values.shape)
    limit = np.iinfo(np.int32)
    integers = np.clip(np.rint(values / scales), limit.min, limit.max).astype(np.int32)
    inputs = [
        _initializer(graph, f"{bias.name}_int32", integers),
        _initializer(graph, f"{bias.name}_scale", scales),
        _initializer(graph, f"{bias.name}_zero_point", np.zeros(scales.shape, np.int32)),
    ]
    dequantize = _node("DequantizeLinear", inputs, f"{inputs[0].name}_dequantized", {"axis": 0})
    dequantize.outputs[0].shape = bias.shape
    dequantize.outputs[0].type = bias.type
    graph.insert_before(graph[0], dequantize)
    node.replace_input_with(2, dequantize.outputs[0])


def _scale_behind(node: ir.Node, index: int) -> np.ndarray:
    """The scale of the DequantizeLinear that feeds input `index`."""
    value = node.inputs[index]
    producer = value.producer() if value is not None else None
    scale = producer.inputs[1] if producer is not None else None
    assert scale is not None
    assert scale.const_value is not None
    return scale.const_value.numpy().astype(np.float64)


def _scale_array(scale: np.ndarray | np.float32, value: ir.Value) -> np.ndarray:
    dtype = np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
    return np.asarray(scale, dtype)


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    unique, number = name, 1
    while unique in graph.initializers:
        number += 1
        unique = f"{name}_{number}"
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(
        name=unique,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _node(op_type: str, inputs: list[ir.Value], output: str, attributes: dict[str, int]) -> ir.Node:
    node = ir.node(op_type, inputs, attributes=attributes, name=f"{output}_{op_type}")
    node.outputs[0].name = output
    return node


def _place_behind(graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)


def _take_over_output(graph: ir.Graph, value: ir.Value, replacement: ir.Value) -> None:
    """Make `replacement` the network's output, under the output's own name, which callers rely on."""
    position = next(i for i, output in enumerate(graph.outputs) if output is value)
    replacement.name, value.name = value.name, f"{value.name}_float"
    graph.outputs[position] = replacement


def _remove_unread_weights(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
