"""Finds outputs of convolutions that can have per-channel scales in ONNX Runtime's form, and writes these.

ONNX Runtime's integer convolution rounds its output with one scale for all channels, even if they differ
widely. TensorRT's form does not round there: such a tensor goes to a SiLU or hard-swish, for example. But
the kernel multiplies each channel's sum by a factor of its own before rounding, so a channel's scale s can
be folded into its weights and bias:

    q = clip(round(W / s . x + b / s) + z, 0, 255)        y = (q - z) * s

The integers of W do not change, Q and DQ have the scale 1, and a Mul after them gives y. (A per-channel
DequantizeLinear would need no Mul, but ONNX Runtime's takes ten times as long as a per-tensor one.) All
readers of y must compute in float.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import input_at
from trtbuild.model.constants import array, is_constant
from trtbuild.model.edits import GraphWriter, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import ONNX_DOMAINS, moves_values
from trtbuild.model.traversal import nodes_by_name, values_by_name
from trtbuild.plan import GRAPH_OUTPUT, Consumer, OutputSteps, QuantParams
from trtbuild.quantization.onnxruntime_placement import WITH_INTEGER_KERNEL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from trtbuild.plan import Placement, Plan

__all__ = ["channel_outputs", "with_steps", "without_rounding"]


def channel_outputs(model: ir.Model, portable: Placement, tensorrt: Placement) -> frozenset[str]:
    """Return the tensors that can have per-channel scales.

    They are rounded in ONNX Runtime's form alone, computed by an INT8 convolution (and its Relu), and read
    by float operators only.

    Args:
        model: the float network.
        portable: where Q/DQ go for ONNX Runtime.
        tensorrt: where they go for TensorRT.
    """
    layers, read = {point.node for point in portable.weights}, _read_by(portable)
    nodes = nodes_by_name(model.graph)
    values = values_by_name(model.graph)
    found = set()
    for name, readers in portable.consumers.items():
        layer = _layer_of(values.get(name))
        if (
            layer is not None
            and layer.name in layers
            and Consumer(layer.name or "", 0) in read
            and name not in tensorrt.consumers
            and _readers_of(values[name]) == readers
            and not any(_is_integer(nodes.get(reader.node), portable, read) for reader in readers)
        ):
            found.add(name)
    return frozenset(found)


def _read_by(placement: Placement) -> set[Consumer]:
    return {reader for readers in placement.consumers.values() for reader in readers}


def _readers_of(value: ir.Value) -> frozenset[Consumer]:
    """All readers of a tensor, including those in bodies."""
    found = {Consumer(use.node.name or "", use.idx) for use in value.uses()}
    if value.is_graph_output():
        found.add(Consumer(GRAPH_OUTPUT, 0))
    return frozenset(found)


def _layer_of(value: ir.Value | None) -> ir.Node | None:
    """The Conv that computes a tensor, directly or through a Relu as its only reader; else None."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Relu":
        given = node.inputs[0]
        alone = given is not None and len(given.uses()) == 1 and not given.is_graph_output()
        node = given.producer() if alone and given is not None else None
    if node is None or node.op_type != "Conv" or node.domain not in ONNX_DOMAINS:
        return None
    bias = input_at(node, 2)
    return node if bias is None or is_constant(bias) else None


def _is_integer(node: ir.Node | None, portable: Placement, read: set[Consumer]) -> bool:
    """Whether a reader is an INT8 layer, or may be fused into an integer kernel."""
    if node is None:  # an output of the network
        return False
    if node.name in {point.node for point in portable.weights}:
        return True
    if node.op_type not in WITH_INTEGER_KERNEL and not moves_values(node):
        return False
    given = any(output.name in portable.consumers for output in node.outputs)
    count = 1 if moves_values(node) else len(node.inputs)
    return given and {Consumer(node.name or "", index) for index in range(count)} <= read


def without_rounding(model: ir.Model, plan: Plan, tensors: Collection[str]) -> Plan:
    """Return the plan with the convolutions of these tensors, from `channel_outputs`, in float.

    Their weights are float; their input is still rounded if the plan rounds it.
    """
    if not tensors:
        return plan
    values = values_by_name(model.graph)
    layers = {layer.name for name in tensors if (layer := _layer_of(values[name])) is not None}
    consumers = {name: own for name, own in plan.consumers.items() if name not in tensors}
    weights = tuple(point for point in plan.weights if point.node not in layers)
    return replace(plan, consumers=consumers, weights=weights)


def with_steps(
    model: ir.Model, plan: Plan, steps: Mapping[str, OutputSteps]
) -> tuple[ir.Model, Plan]:
    """Return the network and the plan with per-channel scales for these tensors.

    Args:
        model: the float network.
        plan: the plan for ONNX Runtime.
        steps: tensor of `channel_outputs` -> its scales.
    """
    if not steps:
        return model, plan
    model = model.clone()
    writer = GraphWriter(model)
    values = values_by_name(model.graph)
    consumers, params = dict(plan.consumers), dict(plan.params)
    for name, own in steps.items():
        counted, reader = _counted(writer, values[name], own.scales)
        del consumers[name], params[name]
        consumers[counted] = frozenset({reader})
        params[counted] = QuantParams(np.float32(1), own.zero_point, ir.DataType.UINT8)
    return model, replace(plan, consumers=consumers, params=params)


def _counted(writer: GraphWriter, value: ir.Value, scales: np.ndarray) -> tuple[str, Consumer]:
    """Fold `scales` into a Conv and add a Mul by them; return the Conv's new output and its reader."""
    layer = _layer_of(value)
    assert layer is not None
    weight = array(layer.inputs[1])
    assert weight is not None
    by = scales.astype(np.float64)
    writer.set_constant(layer, 1, weight / by.reshape(-1, *[1] * (weight.ndim - 1)), "in_steps")
    bias = array(input_at(layer, 2))
    if bias is not None:
        writer.set_constant(layer, 2, bias / by, "in_steps")
    name = value.name or ""
    is_output = value.is_graph_output()
    uses = list(value.uses())
    result = writer.with_constant("Mul", value, scales.reshape(-1, *[1] * (weight.ndim - 2)), name)
    for node, index in uses:
        node.replace_input_with(index, result)
    counted = writer.fresh(f"{name}_in_steps")
    if is_output:
        take_over_output(value, result, aside=counted)
    else:
        value.name, result.name = counted, name
    multiply = result.producer()
    assert multiply is not None
    return value.name or "", Consumer(multiply.name or "", 0)
