"""What is known of one node of a network: what it reads through Q/DQ, with which numbers, how large it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import input_at
from trtbuild.model.constants import array, constant_tensor, tensor_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import WEIGHTED
from trtbuild.model.qdq import dequantized, is_qdq
from trtbuild.model.traversal import label, maker
from trtbuild.plan import INT8_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbuild.runtime.tensorrt.inspector import EngineLayers

__all__ = [
    "FLOAT",
    "NodeFacts",
    "Read",
    "computing_nodes",
    "facts_of",
    "origin",
    "weight_of",
    "with_layers",
]

FLOAT = "float"

# Types of integers and small floats -> what a node that reads them computes in.
_TYPES = {
    ir.DataType.INT8: "INT8",
    ir.DataType.UINT8: "INT8",
    ir.DataType.INT16: "INT16",
    ir.DataType.UINT16: "INT16",
    ir.DataType.INT4: "INT4",
    ir.DataType.UINT4: "INT4",
    ir.DataType.FLOAT8E4M3FN: "FP8",
    ir.DataType.FLOAT8E5M2: "FP8",
}
_FLOATS = {ir.DataType.FLOAT16: "FP16", ir.DataType.BFLOAT16: "BF16", ir.DataType.DOUBLE: "FP64"}


@dataclass(frozen=True)
class Read:
    """One input of a node that goes through Q/DQ.

    Attributes:
        index: which input.
        tensor: the float tensor in front of Q; the constant's name for a weight.
        is_weight: whether it is a constant.
        amax: the largest magnitude that is not clipped: 127 times the scale in INT8 with zero point 0.
            Of several scales, the largest. None where the scale is computed.
        scale: the same of the scale.
        num_scales: one, or one a channel.
        zero_point: of the first scale.
        digest: of a weight's integers and scales, or of an activation's scales where there are several; else
            empty.
    """

    index: int
    tensor: str
    is_weight: bool
    amax: float | None
    scale: float | None
    num_scales: int
    zero_point: int
    digest: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """What is known of a node.

    Attributes:
        name: its name, or that of its first output.
        op_type: its operator; empty where only an engine's layers are known.
        precision: what the network asks for: ``INT8``, ``FP16``, ``float`` ...; empty where it is not known.
        ran: the precision of its layer in the engine; empty where the engine was not opened.
        layer: the layer that it is part of.
        kernel: of that layer.
        ms: time of that layer a run, given to the first of its nodes; None where it was not measured.
        num_bytes: of its constants.
        reason: why it is in its precision.
        reads: the inputs that go through Q/DQ.
        constants: its other constant inputs, biases and float weights: index -> name and digest.
        from_network: whether `reads` is all that there is, since a network was read.
    """

    name: str
    op_type: str
    precision: str = ""
    ran: str = ""
    layer: str = ""
    kernel: str = ""
    ms: float | None = None
    num_bytes: int = 0
    reason: str = ""
    reads: tuple[Read, ...] = ()
    constants: dict[int, tuple[str, str]] = field(default_factory=dict)
    from_network: bool = False


def computing_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Return the nodes of the main graph that are neither Q/DQ nor Constant, in their order."""
    for node in model.graph:
        if not is_qdq(node) and not (node.op_type == "Constant" and node.domain == ""):
            yield node


def origin(value: ir.Value | None) -> ir.Value | None:
    """Return the float tensor in front of all Q/DQ that `value` comes out of, else `value`."""
    while (node := maker(value, "DequantizeLinear", "QuantizeLinear")) is not None:
        value = node.inputs[0]
    return value


def weight_of(node: ir.Node) -> np.ndarray | None:
    """Return the constant weight of a node with weights, dequantized where need be; None for others."""
    if node.op_type not in WEIGHTED or node.domain != "":
        return None
    value = input_at(node, 1)
    found = dequantized(value)
    return array(value) if found is None else found


def facts_of(node: ir.Node) -> NodeFacts:
    """Return what the network itself says of a node."""
    reads = tuple(_reads(node))
    return NodeFacts(
        name=label(node),
        op_type=f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
        precision=_precision(node, reads),
        num_bytes=sum(map(_constant_bytes, node.inputs)),
        reads=reads,
        constants=dict(_constants(node)),
        from_network=True,
    )


def with_layers(facts: NodeFacts, layers: EngineLayers) -> NodeFacts:
    """Return the facts with what an engine's layers say of the node."""
    layer = layers.layer_of(facts.name)
    if layer is None:
        return facts
    return replace(facts, ran=layer.precision, layer=layer.name, kernel=layer.tactic)


def _reads(node: ir.Node) -> Iterator[Read]:
    for index, value in enumerate(node.inputs):
        dequantize = maker(value, "DequantizeLinear")
        if dequantize is None:
            continue
        before = origin(value)
        is_weight = constant_tensor(dequantize.inputs[0]) is not None
        scales = array(dequantize.inputs[1])
        zeros = array(input_at(dequantize, 2))
        zero = 0 if zeros is None or not zeros.size else int(zeros.reshape(-1)[0])
        known = scales is not None and scales.size
        several = dequantize.inputs[1:2] if scales is not None and scales.size > 1 else ()
        scale = float(np.max(scales)) if scales is not None and known else None
        yield Read(
            index=index,
            tensor=(before.name if before is not None else None) or "",
            is_weight=is_weight,
            amax=None if scale is None else scale * _limit(dequantize.inputs[0], zero),
            scale=scale,
            num_scales=0 if scales is None else int(scales.size),
            zero_point=zero,
            digest=_digest(dequantize.inputs if is_weight else several),
        )


def _constants(node: ir.Node) -> Iterator[tuple[int, tuple[str, str]]]:
    for index, value in enumerate(node.inputs):
        if value is not None and constant_tensor(value) is not None:
            yield index, (value.name or "", _digest((value,)))


def _limit(stored: ir.Value | None, zero_point: int) -> float:
    """Steps from zero to the largest magnitude that is not clipped."""
    kind = ir.DataType.INT8 if stored is None or stored.dtype is None else stored.dtype
    if kind is ir.DataType.INT8 and zero_point == 0:
        return INT8_LIMIT
    return float(max(zero_point - kind.min, kind.max - zero_point))


def _digest(values: Sequence[ir.Value | None]) -> str:
    state = hashlib.blake2b(digest_size=8)
    for value in values:
        tensor = constant_tensor(value)
        if tensor is not None:
            state.update(tensor_bytes(tensor))
    return state.hexdigest() if values else ""


def _constant_bytes(value: ir.Value | None) -> int:
    tensor = constant_tensor(value)
    if tensor is not None:
        return tensor.nbytes
    dequantize = maker(value, "DequantizeLinear")
    if dequantize is None or constant_tensor(dequantize.inputs[0]) is None:
        return 0
    return sum(map(_constant_bytes, dequantize.inputs))


def _precision(node: ir.Node, reads: tuple[Read, ...]) -> str:
    """What a node computes in: by the data that it reads through Q/DQ, else by the type of its output."""
    data = [read for read in reads if not read.is_weight]
    if data:
        return _stored_type(node, data[0].index)
    out = next((value.dtype for value in node.outputs if value.dtype is not None), None)
    held = FLOAT if out is None else _FLOATS.get(out, FLOAT)
    weights = [read for read in reads if read.is_weight]
    return f"{held}, {_stored_type(node, weights[0].index)} weights" if weights else held


def _stored_type(node: ir.Node, index: int) -> str:
    dequantize = maker(node.inputs[index], "DequantizeLinear")
    stored = None if dequantize is None else dequantize.inputs[0]
    kind = None if stored is None else stored.dtype
    return _TYPES.get(kind, str(kind)) if kind is not None else "INT8"
