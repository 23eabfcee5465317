"""Insert QuantizeLinear / DequantizeLinear into a network, as a plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import array, constant_tensor
from trtbuild.model.edits import GraphWriter, remove_unread, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import nodes_by_name
from trtbuild.plan import GRAPH_OUTPUT, Consumer, Plan, QuantParams, WeightPoint
from trtbuild.quantization.rounded_weights import of_each_weight, own_scales, rounded
from trtbuild.quantization.weights import quantize_bias, scales_that_hold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["insert"]


def insert(model: ir.Model, plan: Plan) -> ir.Model:
    """Return a copy of `model` with one Q/DQ pair per quantized tensor, and INT8 weights behind DQ.

    Readers that the plan does not name still read floats. The per-channel ``axis`` is always written:
    TensorRT's parser and ONNX have different defaults.
    """
    model = model.clone()
    writer = GraphWriter(model)
    nodes = nodes_by_name(model.graph)
    values = {value.name: value for value in _activations(model)}
    for name, consumers in plan.consumers.items():
        _quantize_activation(writer, values[name], consumers, plan.params[name], nodes)
    done: dict[_Weight, ir.Value] = {}
    for point, scales in zip(plan.weights, _scales_of_weights(nodes, plan)):
        _quantize_weight(writer, nodes[point.node], point, scales, done)
    for name in sorted(plan.int32_biases):
        _quantize_bias(writer, nodes[name])
    remove_unread(model)
    return model


def _activations(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _quantize_activation(
    writer: GraphWriter,
    value: ir.Value,
    consumers: Iterable[Consumer],
    params: QuantParams,
    nodes: Mapping[str, ir.Node],
) -> None:
    name = value.name or ""
    parameters = [
        writer.constant(f"{name}_scale", _scale_array(params.scale, value)),
        writer.constant(f"{name}_zero_point", np.asarray(params.zero_point, params.dtype.numpy())),
    ]
    quantize = writer.quantize(value, parameters, f"{name}_quantized")
    dequantize = writer.dequantize(
        quantize.outputs[0], parameters, f"{name}_dequantized", like=value, axis=None
    )
    writer.place_behind(value, [quantize, dequantize])
    for consumer in sorted(consumers):
        if consumer.node == GRAPH_OUTPUT:
            aside = writer.fresh(f"{name}_float")
            take_over_output(value, dequantize.outputs[0], aside=aside)
        else:
            nodes[consumer.node].replace_input_with(consumer.index, dequantize.outputs[0])


# A weight, its per-channel axis, and the bytes of its scales.
_Weight = tuple[ir.Value, int | None, bytes]


def _scales_of_weights(nodes: Mapping[str, ir.Node], plan: Plan) -> list[np.ndarray]:
    """The scales of the plan's weights, in order; weights in files are also rounded, on all cores."""

    def weight_of(point: WeightPoint) -> ir.Value:
        weight = nodes[point.node].inputs[point.index]
        assert weight is not None
        return weight

    def find(point: WeightPoint) -> np.ndarray:
        node, weight = nodes[point.node], weight_of(point)
        scales = own_scales(weight, point.axis)
        if point.node in plan.int32_biases:
            scales = _scales_that_hold_bias(node, weight, scales, point.axis)
        if isinstance(constant_tensor(weight), ir.ExternalTensor):
            rounded(weight, scales, point.axis)
        return scales

    return of_each_weight(find, {point: weight_of(point) for point in plan.weights})


def _scales_that_hold_bias(
    node: ir.Node, weight: ir.Value, own: np.ndarray, axis: int | None
) -> np.ndarray:
    content, bias = array(weight), array(node.inputs[2])
    assert content is not None
    assert bias is not None
    return scales_that_hold(bias, _scale_behind(node, 0), own, _are_zero(content, axis))


def _quantize_weight(
    writer: GraphWriter,
    node: ir.Node,
    point: WeightPoint,
    scales: np.ndarray,
    done: dict[_Weight, ir.Value],
) -> None:
    weight = node.inputs[point.index]
    assert weight is not None
    key = (weight, point.axis, scales.tobytes())
    if key not in done:
        steps = rounded(weight, scales, point.axis)
        done[key] = _constant_behind_dq(writer, weight, steps, scales, point.axis)
    node.replace_input_with(point.index, done[key])


def _are_zero(content: np.ndarray, axis: int | None) -> np.ndarray:
    """For each channel of a weight, whether it is all zeros."""
    others = tuple(i for i in range(content.ndim) if i != axis) if axis is not None else None
    return np.asarray(~content.any(axis=others))


def _quantize_bias(writer: GraphWriter, node: ir.Node) -> None:
    bias = node.inputs[2]
    assert bias is not None
    content = array(bias)
    assert content is not None
    scales, integers = quantize_bias(content, _scale_behind(node, 0), _scale_behind(node, 1))
    steps = ir.Tensor(integers)
    node.replace_input_with(2, _constant_behind_dq(writer, bias, steps, scales, axis=0))


def _constant_behind_dq(
    writer: GraphWriter,
    source: ir.Value,
    steps: ir.TensorProtocol,
    scales: np.ndarray,
    axis: int | None,
) -> ir.Value:
    """The output of a DequantizeLinear of the integers `steps`, to replace the constant `source`."""
    name, dtype = source.name or "", steps.dtype.numpy()
    parameters = [
        writer.constant(f"{name}_scale", _scale_array(scales, source)),
        writer.constant(f"{name}_zero_point", np.zeros(scales.shape, dtype)),
    ]
    stored = writer.constant(f"{name}_{dtype.name}", steps)
    dequantize = writer.dequantize(stored, parameters, f"{name}_dequantized", source, axis)
    writer.graph.insert_before(writer.graph[0], dequantize)
    return dequantize.outputs[0]


def _scale_behind(node: ir.Node, index: int) -> np.ndarray:
    """The scale of the DequantizeLinear that feeds input `index`."""
    value = node.inputs[index]
    producer = value.producer() if value is not None else None
    scale = array(producer.inputs[1] if producer is not None else None)
    assert scale is not None
    return scale


def _scale_array(scale: np.ndarray | np.float32, value: ir.Value) -> np.ndarray:
    dtype = np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
    return np.asarray(scale, dtype)
