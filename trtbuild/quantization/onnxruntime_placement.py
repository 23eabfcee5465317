"""Where Q/DQ go for ONNX Runtime on CPU, so that it runs INT8 kernels.

ONNX Runtime fuses only DQ -> operator -> Q into an integer kernel. So Q/DQ are placed around every operator
with such a kernel, outputs included, and activations are uint8 (its int8 x int8 kernels are slower than
float). The ranges are those of the calibration; the layers are those in INT8 in TensorRT's form.

1. Selected Conv, Gemm, MatMul and ConvTranspose read data and weight through Q/DQ.
2. The output of a selected Conv is quantized, after its Relu or Clip if that is its only reader: with
   zero point 0 the integer kernel clips by itself. The output of a Gemm or MatMul is quantized if rule 3
   needs it.
3. Add, Concat, pooling and data movement between two INT8 layers, with all inputs quantized, have a
   quantized output. A tensor that only float operators read, or that leaves the network (the mean after the
   last convolution), stays float: rounding it could make different class scores equal, and saves nothing.
4. If a convolution's output leaves the network with no layer between, its range covers all values seen:
   clipping would change the network's answer directly.
   A tensor read by Softmax or a normalisation, and by no INT8 layer, stays float (`fragile`).
5. A group of TensorRT's form that is kept in float reads floats here, too, and has no integer kernel; a
   convolution before a layer that is kept in float outputs floats. A tensor that no integer kernel computes
   (an input, a LayerNormalization's output) is rounded for its INT8 readers only. INT8 in this form alone
   (an integer kernel, an output of the network) is a group of its own.

Source: the Q/DQ selectors of ONNX Runtime (qdq_transformer), and the fused graphs it writes out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import constant_tensor, is_constant
from trtbuild.model.graph_library import ir
from trtbuild.model.names import value_name
from trtbuild.model.operators import AVERAGING, CLIPPING, ONNX_DOMAINS, moves_values, weight_axis
from trtbuild.model.qdq import behind_activation
from trtbuild.model.traversal import values_of
from trtbuild.plan import GRAPH_OUTPUT, Consumer, Group, GroupKind, Placement, QuantParams
from trtbuild.quantization.fragile import fragile_reader
from trtbuild.quantization.layers_ahead import layers_ahead
from trtbuild.quantization.selection import output_group_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from calibrators import TensorRange

__all__ = [
    "WITH_INTEGER_KERNEL",
    "difference",
    "integer_biases",
    "place_portable",
    "portable_groups",
    "unsigned",
]

WITH_INTEGER_KERNEL = frozenset({"Add", "Concat", "LeakyRelu", "Mul", "Sigmoid"}) | AVERAGING
"""Operators without weights that ONNX Runtime can run on integers."""

# These kernels can also output floats, so their outputs are quantized only for a reader that needs it.
_FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})


def place_portable(
    model: ir.Model, placement: Placement, without: Collection[str] = ()
) -> Placement:
    """Place Q/DQ for ONNX Runtime around the layers that `placement` (TensorRT's) selected.

    Args:
        model: the float network.
        placement: TensorRT's placement.
        without: nodes without integer kernels, even if their inputs are rounded.
    """
    selected = {point.node for point in placement.weights}
    tensors = _quantized_tensors(model, placement, placement.in_float, without)
    quantized = tensors.quantized
    consumers = _consumers(model, placement, tensors)
    roots: dict[str, frozenset[str]] = {}
    for node in model.graph:
        origin = value_name(node.inputs[0]) if node.inputs and moves_values(node) else None
        for output in node.outputs:
            name = value_name(output)
            if name in quantized:
                roots[name] = roots[origin] if origin in roots else frozenset({name})
    roots.update({name: frozenset({name}) for name in quantized if name not in roots})
    roots.update(_parts_of_concats(model, roots))
    differences = _differences(model, placement, selected, quantized)
    return replace(
        placement,
        consumers=consumers,
        roots={n: of for n, of in roots.items() if n not in differences and n in consumers},
        differences=differences,
        unclipped=frozenset().union(*(roots[name] for name in tensors.leaving)),
    )


def portable_groups(
    model: ir.Model, placement: Placement, floats: Mapping[str, str]
) -> tuple[Group, ...]:
    """Return the groups of this form alone: integer kernels and outputs of the network.

    Args:
        model: the float network.
        placement: TensorRT's placement, with the same groups in float.
        floats: name of a group that stays in float -> why.
    """
    floats = {**{g.name: g.reason for g in placement.groups if not g.int8}, **floats}
    tensors = _quantized_tensors(model, placement, floats)
    # a kernel in float may make others float; those named in `floats` are groups nevertheless
    alone = _quantized_tensors(model, placement, ()) if floats else tensors
    without = alone.kernels & floats.keys()
    known = {group.name for group in placement.groups}
    found = []
    for node in model.graph:
        name = node.name or ""
        if name in (tensors.kernels | without) - known:
            readers = frozenset(Consumer(name, index) for index in range(_num_read(node)))
            reason = floats.get(name, "ONNX Runtime: integer kernel between quantized tensors")
            found.append(
                Group(name, node.op_type, GroupKind.KERNEL, readers, name not in floats, reason)
            )
    for value in model.graph.outputs:
        name = output_group_name(value_name(value))
        if value_name(value) in tensors.quantized and not value.is_graph_input():
            reason = floats.get(name, "ONNX Runtime: the kernel before it gives integers")
            readers = frozenset({Consumer(GRAPH_OUTPUT, 0)})
            found.append(
                Group(name, GRAPH_OUTPUT, GroupKind.OUTPUT, readers, name not in floats, reason)
            )
    return tuple(found)


def _num_read(node: ir.Node) -> int:
    """How many inputs are data: of data movement, the others are shapes and indices."""
    return 1 if moves_values(node) else len(node.inputs)


def _consumers(
    model: ir.Model, placement: Placement, tensors: _Tensors
) -> dict[str, frozenset[Consumer]]:
    """Quantized tensor -> its readers through the Q/DQ pair; tensors without such a reader get no pair."""
    floats = placement.in_float
    in_float = {
        consumer
        for group in placement.groups
        if group.name in floats and group.kind is not GroupKind.OUTPUT
        for consumer in group.consumers
    }
    in_int8 = {c for readers in placement.consumers.values() for c in readers}
    found = {}
    for value in values_of(model.graph):
        name, readers = value_name(value), _readers(value)
        left = readers - in_float
        if name not in tensors.made_by_kernels:
            left = frozenset(c for c in left if c in in_int8 or c.node in tensors.kernels)
        if output_group_name(name) in floats:
            left -= {Consumer(GRAPH_OUTPUT, 0)}
        if name in tensors.quantized and (left or not readers):
            found[name] = left
    return found


def _parts_of_concats(
    model: ir.Model, roots: dict[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Tensors that only a Concat reads -> the Concat's roots: with one scale, parts are copied unchanged.

    A part after a Relu shares the scale only if all parts are: else its zero point would not be 0, and the
    kernel would not do the Relu's clipping.
    """
    found: dict[str, frozenset[str]] = {}
    for node in reversed(model.graph):
        joined = value_name(node.outputs[0])
        if node.op_type != "Concat" or joined not in roots:
            continue
        kinds = {_is_activation(value) for value in node.inputs}
        for value in node.inputs:
            name = value_name(value)
            alone = value is not None and len(value.uses()) == 1 and not value.is_graph_output()
            if (
                alone
                and roots.get(name) == frozenset({name})
                and (len(kinds) == 1 or not _is_activation(value))
            ):
                found[name] = found.get(joined, roots[joined])
    return found


def _is_activation(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type in CLIPPING


def difference(total: QuantParams, addend: QuantParams) -> QuantParams:
    """Return parameters that cover all values of ``total - addend``."""
    low, high = _ends(total)
    least, most = _ends(addend)
    return _over(low - most, high - least)


def _ends(params: QuantParams) -> tuple[float, float]:
    scale = float(params.scale)
    return -params.zero_point * scale, (255 - params.zero_point) * scale


def integer_biases(model: ir.Model, placement: Placement) -> frozenset[str]:
    """Return the selected layers whose bias can become int32: a float32 constant, one value per channel."""
    selected = {point.node for point in placement.weights}
    read = {consumer for readers in placement.consumers.values() for consumer in readers}
    return frozenset(
        node.name or ""
        for node in model.graph
        if node.name in selected
        and node.op_type in ("Conv", "Gemm")
        and len(node.inputs) > 2
        and is_constant(node.inputs[2])
        and Consumer(node.name or "", 0) in read
        and _is_one_per_channel(node.inputs[2], node)
    )


def _is_one_per_channel(bias: ir.Value | None, node: ir.Node) -> bool:
    weight = node.inputs[1]
    kernel, added = constant_tensor(weight), constant_tensor(bias)
    assert kernel is not None
    assert added is not None
    axis = weight_axis(node, len(kernel.shape))
    assert axis is not None
    channels = (kernel.shape[axis],)
    return tuple(added.shape) == channels and added.dtype == ir.DataType.FLOAT


def unsigned(given: TensorRange) -> QuantParams:
    """Return uint8 parameters for the part of [-amax, amax] that the tensor uses; zero is exact.

    Non-negative tensors get zero point 0, so that the kernel clips like a ReLU.
    """
    return _over(max(given.minimum, -given.amax), min(given.maximum, given.amax))


def _over(low: float, high: float) -> QuantParams:
    low, high = min(0.0, low), max(0.0, high)
    scale = np.float32(max((high - low) / 255, float(np.finfo(np.float32).tiny)))
    return QuantParams(scale, round(-low / float(scale)), ir.DataType.UINT8)


def _differences(
    model: ir.Model, placement: Placement, selected: set[str], quantized: set[str]
) -> dict[str, tuple[str, str]]:
    """The main branch of every residual Add -> (output of the Add, skip branch).

    Observing the main branch would prevent the fusion of convolution and Add in the float network, which
    costs more time than all the counting. A Relu after the Add does no harm: where the main branch is below
    minus the skip branch, the result is 0 however far below.
    """
    skips = {c: name for name, readers in placement.consumers.items() for c in readers}
    found = {}
    for node in model.graph:
        for index in (0, 1) if node.op_type == "Add" and not node.domain else ():
            skip = skips.get(Consumer(node.name or "", index))
            main, total = node.inputs[1 - index], value_name(behind_activation(node.outputs[0]))
            producer = main.producer() if main is not None else None
            by_layer = (
                producer is not None and producer.op_type == "Conv" and producer.name in selected
            )
            if by_layer and skip in quantized and total in quantized:
                found[value_name(main)] = (total, skip)
    return found


@dataclass(frozen=True)
class _Tensors:
    """Names of the tensors to round and of the nodes with integer kernels.

    Attributes:
        quantized: tensors that get a Q/DQ pair, if it has a reader.
        made_by_kernels: those of them that an integer kernel computes.
        leaving: those of them that reach an output of the network with no layer between.
        kernels: nodes without weights that could run in integers for an INT8 layer after them.
    """

    quantized: set[str]
    made_by_kernels: set[str]
    leaving: set[str]
    kernels: set[str]


def _quantized_tensors(
    model: ir.Model,
    placement: Placement,
    floats: Collection[str],
    without: Collection[str] = (),
) -> _Tensors:
    selected = {point.node for point in placement.weights}
    layers_in_float = {g.name for g in placement.groups if g.kind is GroupKind.LAYER and not g.int8}
    ahead = {
        value_name(v): one for v, one in layers_ahead(model, selected, layers_in_float).items()
    }
    possible, possible_kernels = _possible(model, selected, floats, without)
    quantized = {value_name(node.inputs[0]) for node in model.graph if node.name in selected}
    kernels, made = _serving_layers(model, possible_kernels, floats, quantized)
    for node in model.graph:
        if node.name not in selected:
            continue
        result = behind_activation(node.outputs[0])
        given = value_name(result)
        if node.op_type == "Conv":
            if given not in quantized and (ahead[given].float_layer or fragile_reader(result)):
                continue
            quantized.add(given)
        made.add(given)
    quantized &= possible
    return _Tensors(quantized, made & quantized, {n for n in quantized if ahead[n].output}, kernels)


def _serving_layers(
    model: ir.Model, possible: set[str], floats: Collection[str], quantized: set[str]
) -> tuple[set[str], set[str]]:
    """Follow quantized tensors back through nodes with integer kernels; add what these read to `quantized`.

    Returns:
        The nodes with integer kernels on the way, and the tensors that they compute in integers.
    """
    kernels: set[str] = set()
    made: set[str] = set()
    for node in reversed(model.graph):
        if node.name not in possible:
            continue
        results = {value_name(output) for output in node.outputs}
        results.add(value_name(behind_activation(node.outputs[0])))
        if results & quantized:
            kernels.add(node.name or "")
            if node.name not in floats:
                quantized.update(value_name(value) for value in node.inputs[: _num_read(node)])
                made |= results
    return kernels, made


def _possible(
    model: ir.Model, selected: set[str], floats: Collection[str], without: Collection[str]
) -> tuple[set[str], set[str]]:
    """Names of the tensors that could get a Q/DQ pair, and of the nodes that could run in integers."""
    quantized = {value_name(node.inputs[0]) for node in model.graph if node.name in selected}
    kernels: set[str] = set()
    for node in model.graph:
        if node.name in selected and node.op_type == "Conv":
            quantized.add(value_name(behind_activation(node.outputs[0])))
    known = [node for node in model.graph if node.name not in without and _has_integer_kernel(node)]
    grew = True
    while grew:
        before = len(quantized)
        for node in known:
            if not _runs_in_integers(node, quantized, selected):
                continue
            kernels.add(node.name or "")
            if node.name not in floats:
                quantized.add(value_name(behind_activation(node.outputs[0])))
                quantized.update(value_name(value) for value in node.inputs[: _num_read(node)])
        grew = len(quantized) > before
    return quantized, kernels


def _has_integer_kernel(node: ir.Node) -> bool:
    if node.domain not in ONNX_DOMAINS or not node.inputs:
        return False
    return node.op_type in WITH_INTEGER_KERNEL or moves_values(node)


def _runs_in_integers(node: ir.Node, quantized: set[str], selected: set[str]) -> bool:
    """Whether all data inputs of a node with an integer kernel are, or can be, quantized."""
    if moves_values(node):
        return value_name(node.inputs[0]) in quantized
    return all(
        value is not None
        and not is_constant(value)
        and (value_name(value) in quantized or _can_be_quantized(value, selected))
        for value in node.inputs
    )


def _can_be_quantized(value: ir.Value, selected: set[str]) -> bool:
    producer = value.producer()
    return producer is not None and producer.name in selected and producer.op_type in _FLOAT_OUTPUT


def _readers(value: ir.Value) -> frozenset[Consumer]:
    readers = {
        Consumer(use.node.name or "", use.idx)
        for use in value.uses()
        if use.node.graph is value.graph
    }
    # an input that is also an output is passed through unchanged
    if value.is_graph_output() and not value.is_graph_input():
        readers.add(Consumer(GRAPH_OUTPUT, 0))
    return frozenset(readers)
