"""Where Q/DQ go for ONNX Runtime on CPU, so that it runs INT8 kernels.

ONNX Runtime fuses DQ -> operator -> Q into one integer kernel, and nothing else; so Q/DQ stand around
every operator that has such a kernel, outputs included, and activations are uint8 (its int8 x int8
kernels are slower than float). The ranges are those of the calibration; the layers are those that run in
INT8 in TensorRT's form.

1. Selected Conv, Gemm, MatMul and ConvTranspose read data and weight through Q/DQ.
2. The output of a selected Conv is quantized, behind its Relu or Clip when that is its only reader: with
   zero point 0 the integer kernel clips by itself. A Gemm's or MatMul's output is, when rule 3 reads it.
3. Add, Concat, pooling and data movement whose inputs are all quantized have a quantized output; but
   what only leaves the network (the mean behind the last convolution) stays float, since rounding it
   would make equal class scores of unequal ones and save nothing.
4. A group of TensorRT's form that is kept in float reads floats here, too, and has no integer kernel. A
   layer in float still reads what its neighbours have rounded anyway. Where this form alone has INT8 (an
   integer kernel, an output of the network), that is a group of its own.

Source: the Q/DQ selectors of ONNX Runtime (qdq_transformer), and the fused graphs it writes out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from trtbuild.model.constants import constant_tensor, is_constant
from trtbuild.model.operators import AVERAGING, CLIPPING, moves_values, weight_axis
from trtbuild.model.qdq import behind_activation
from trtbuild.plan import GRAPH_OUTPUT, Consumer, Group, GroupKind, Placement, QuantParams
from trtbuild.quantization.selection import output_group_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from calibrators import TensorRange

__all__ = [
    "difference",
    "integer_biases",
    "place_portable",
    "portable_groups",
    "unsigned",
]

_WITH_INTEGER_KERNEL = frozenset({"Add", "Concat", "LeakyRelu", "Mul", "Sigmoid"}) | AVERAGING
# These kernels can also give floats, so their outputs are quantized only for a reader that wants it.
_FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})


def place_portable(model: ir.Model, placement: Placement) -> Placement:
    """Place Q/DQ for ONNX Runtime around the layers that `placement` (TensorRT's) selected."""
    selected = {point.node for point in placement.weights}
    quantized, _ = _quantized_tensors(model, selected, placement.in_float)
    consumers = _consumers(model, placement, quantized)
    roots: dict[str, frozenset[str]] = {}
    for node in model.graph:
        origin = _name(node.inputs[0]) if node.inputs and moves_values(node) else None
        for output in node.outputs:
            name = _name(output)
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
    )


def portable_groups(
    model: ir.Model, placement: Placement, floats: Mapping[str, str]
) -> tuple[Group, ...]:
    """Return the groups that stand in this form alone: integer kernels and outputs of the network.

    Args:
        model: the float network.
        placement: TensorRT's, of the same choice.
        floats: name of a group that stays in float -> why.
    """
    selected = {point.node for point in placement.weights}
    quantized, kernels = _quantized_tensors(model, selected, floats)
    known = {group.name for group in placement.groups}
    found = []
    for node in model.graph:
        name = node.name or ""
        if name in kernels - known:
            readers = frozenset(Consumer(name, index) for index in range(_num_read(node)))
            reason = floats.get(name, "ONNX Runtime: integer kernel between quantized tensors")
            found.append(
                Group(name, node.op_type, GroupKind.KERNEL, readers, name not in floats, reason)
            )
    for value in model.graph.outputs:
        name = output_group_name(_name(value))
        if _name(value) in quantized and not value.is_graph_input():
            reason = floats.get(name, "ONNX Runtime: the kernel in front of it gives integers")
            readers = frozenset({Consumer(GRAPH_OUTPUT, 0)})
            found.append(
                Group(name, GRAPH_OUTPUT, GroupKind.OUTPUT, readers, name not in floats, reason)
            )
    return tuple(found)


def _num_read(node: ir.Node) -> int:
    """How many of the inputs hold the values that the kernel computes on."""
    return 1 if moves_values(node) else len(node.inputs)


def _consumers(
    model: ir.Model, placement: Placement, quantized: set[str]
) -> dict[str, frozenset[Consumer]]:
    """Quantized tensor -> all its readers but the groups in float; without any it needs no pair."""
    floats = placement.in_float
    in_float = {
        consumer
        for group in placement.groups
        if group.name in floats and group.kind not in (GroupKind.LAYER, GroupKind.OUTPUT)
        for consumer in group.consumers
    }
    found = {}
    for value in _values(model):
        name, readers = _name(value), _readers(value)
        left = readers - in_float
        if output_group_name(name) in floats:
            left -= {Consumer(GRAPH_OUTPUT, 0)}
        if name in quantized and (left or not readers):
            found[name] = left
    return found


def _parts_of_concats(
    model: ir.Model, roots: dict[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Tensors that only a Concat reads -> the Concat's roots: one rounding, and parts that are copied.

    A part behind a Relu shares only when all parts are: else the zero point would not stand for the Relu.
    """
    found: dict[str, frozenset[str]] = {}
    for node in reversed(model.graph):
        joined = _name(node.outputs[0])
        if node.op_type != "Concat" or joined not in roots:
            continue
        kinds = {_is_activation(value) for value in node.inputs}
        for value in node.inputs:
            name = _name(value)
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
    """Parameters for everything that can be ``total - addend``."""
    low, high = _ends(total)
    least, most = _ends(addend)
    return _over(low - most, high - least)


def _ends(params: QuantParams) -> tuple[float, float]:
    scale = float(params.scale)
    return -params.zero_point * scale, (255 - params.zero_point) * scale


def integer_biases(model: ir.Model, placement: Placement) -> frozenset[str]:
    """Names of the selected layers whose bias their kernels take as int32: float32, one per channel."""
    selected = {point.node for point in placement.weights}
    return frozenset(
        node.name or ""
        for node in model.graph
        if node.name in selected
        and node.op_type in ("Conv", "Gemm")
        and len(node.inputs) > 2
        and is_constant(node.inputs[2])
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
    """uint8 over the part of [-amax, amax] that the tensor uses, zero included and exact.

    Non-negative tensors get zero point 0, which also stands for a ReLU.
    """
    return _over(max(given.minimum, -given.amax), min(given.maximum, given.amax))


def _over(low: float, high: float) -> QuantParams:
    low, high = min(0.0, low), max(0.0, high)
    scale = np.float32(max((high - low) / 255, float(np.finfo(np.float32).tiny)))
    return QuantParams(scale, round(-low / float(scale)), ir.DataType.UINT8)


def _differences(
    model: ir.Model, placement: Placement, selected: set[str], quantized: set[str]
) -> dict[str, tuple[str, str]]:
    """The main branch of every residual Add -> (what the Add gives, the skip branch).

    Watching the main branch would part a convolution from its Add in the float network, which costs
    more than all the counting. A Relu behind the Add hides nothing that matters: where the main branch
    is below minus the skip branch, the result is 0 however far below.
    """
    skips = {c: name for name, readers in placement.consumers.items() for c in readers}
    found = {}
    for node in model.graph:
        for index in (0, 1) if node.op_type == "Add" and not node.domain else ():
            skip = skips.get(Consumer(node.name or "", index))
            main, total = node.inputs[1 - index], _name(behind_activation(node.outputs[0]))
            producer = main.producer() if main is not None else None
            by_layer = (
                producer is not None and producer.op_type == "Conv" and producer.name in selected
            )
            if by_layer and skip in quantized and total in quantized:
                found[_name(main)] = (total, skip)
    return found


def _quantized_tensors(
    model: ir.Model, selected: set[str], floats: Collection[str]
) -> tuple[set[str], set[str]]:
    """Names of the tensors that get a pair, and of the nodes that could run in integers for it."""
    quantized = {_name(node.inputs[0]) for node in model.graph if node.name in selected}
    kernels: set[str] = set()
    for node in model.graph:
        if node.name in selected and node.op_type == "Conv":
            quantized.add(_name(behind_activation(node.outputs[0])))
    grew = True
    while grew:
        before = len(quantized)
        for node in model.graph:
            if not _runs_in_integers(node, quantized, selected):
                continue
            kernels.add(node.name or "")
            if node.name not in floats:
                quantized.add(_name(behind_activation(node.outputs[0])))
                quantized.update(_name(value) for value in node.inputs[: _num_read(node)])
        grew = len(quantized) > before
    return quantized, kernels


def _runs_in_integers(node: ir.Node, quantized: set[str], selected: set[str]) -> bool:
    if node.domain not in ("", "ai.onnx") or not node.inputs:
        return False
    if moves_values(node):
        return _name(node.inputs[0]) in quantized
    if node.op_type not in _WITH_INTEGER_KERNEL or _only_leaves(node.outputs[0]):
        return False
    return all(
        value is not None
        and not is_constant(value)
        and (_name(value) in quantized or _can_be_quantized(value, selected))
        for value in node.inputs
    )


def _only_leaves(value: ir.Value) -> bool:
    """Whether `value` goes nowhere but to the outputs of the network, moved or not."""
    return all(
        moves_values(use.node) and use.idx == 0 and _only_leaves(use.node.outputs[0])
        for use in value.uses()
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
    # an input that is an output as well goes through unchanged
    if value.is_graph_output() and not value.is_graph_input():
        readers.add(Consumer(GRAPH_OUTPUT, 0))
    return frozenset(readers)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""
