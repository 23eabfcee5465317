"""Facts of one node of a network: what it reads through Q/DQ, with which scales, and its size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trtbuild.diff.bodies import read_by
from trtbuild.diff.reads import bytes_read, origin, outputs_given, reads_of
from trtbuild.model.attributes import input_at
from trtbuild.model.constants import array, constant_tensor, tensor_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import WEIGHTED
from trtbuild.model.qdq import dequantized, is_qdq
from trtbuild.model.traversal import label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trtbuild.diff.reads import Read
    from trtbuild.runtime.tensorrt.inspector import EngineLayers

__all__ = [
    "FLOAT",
    "NodeFacts",
    "computing_nodes",
    "facts_of",
    "weight_of",
    "with_layers",
]

FLOAT = "float"

# Types of integers and small floats -> the precision in which a node that reads them computes.
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
class NodeFacts:
    """Facts of one node.

    Attributes:
        name: its name, or the name of its first output.
        op_type: its operator; empty if only an engine's layers are known.
        precision: precision that the network asks for: ``INT8``, ``FP16``, ``float`` ...; empty if not known.
        ran: precision of its layer in the engine; empty if the engine was not opened.
        layer: name of the layer that contains it.
        kernel: kernel of that layer.
        ms: time of that layer in one run, counted for the first of its nodes; None if it was not measured.
        num_bytes: size of its constants.
        reason: why it has its precision.
        reads: its inputs that go through Q/DQ, and the network outputs that it gives through Q/DQ.
        constants: its other constant inputs, biases and float weights: index -> name and digest.
        from_network: whether a network was read, so that `reads` is complete.
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


def weight_of(node: ir.Node) -> NDArray[Any] | None:
    """Return a node's constant weight, dequantized if necessary; None for operators without weights."""
    if node.op_type not in WEIGHTED or node.domain != "":
        return None
    value = input_at(node, 1)
    found = dequantized(value)
    return array(origin(value)) if found is None else found


def facts_of(node: ir.Node) -> NodeFacts:
    """Return the facts that the network itself gives of a node."""
    reads = tuple(reads_of(node))
    return NodeFacts(
        name=label(node),
        op_type=f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
        precision=_precision(node, reads),
        num_bytes=sum(map(bytes_read, read_by(node))),
        reads=(*reads, *outputs_given(node)),
        constants=dict(_constants(node)),
        from_network=True,
    )


def with_layers(facts: NodeFacts, layers: EngineLayers) -> NodeFacts:
    """Return the facts, completed from the engine's layers."""
    layer = layers.layer_of(facts.name)
    if layer is None:
        return facts
    return replace(facts, ran=layer.precision, layer=layer.name, kernel=layer.tactic)


def _constants(node: ir.Node) -> Iterator[tuple[int, tuple[str, str]]]:
    for index, value in enumerate(read_by(node)):
        tensor = constant_tensor(value)
        if value is not None and tensor is not None:
            digest = hashlib.blake2b(tensor_bytes(tensor), digest_size=8).hexdigest()
            yield index, (value.name or "", digest)


def _precision(node: ir.Node, reads: tuple[Read, ...]) -> str:
    """The precision of a node: from the data that it reads through Q/DQ, else from the type of its output."""
    data = [read for read in reads if not read.is_weight]
    if data:
        return _word(data[0].kind)
    out = next((value.dtype for value in node.outputs if value.dtype is not None), None)
    held = FLOAT if out is None else _FLOATS.get(out, FLOAT)
    weights = [read for read in reads if read.is_weight]
    return f"{held}, {_word(weights[0].kind)} weights" if weights else held


def _word(kind: ir.DataType) -> str:
    return _TYPES.get(kind, str(kind))
