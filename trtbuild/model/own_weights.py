"""INT8 weights that several layers share, given to each of them: for ONNX Runtime on older x86 processors.

Where a processor has no VNNI instructions, ONNX Runtime multiplies exactly only if it makes unsigned weights
of signed ones first (its `Avx2WeightS8ToU8Transformer`), for each layer and under one name: it cannot open a
network in which two layers have one weight.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import onnx

from trtbuild.model.traversal import proto_graphs, proto_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["with_own_weights"]


def with_own_weights(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Give each layer of a network INT8 weights of its own.

    Args:
        content: the bytes of the network.

    Returns:
        The bytes of the other network, and for each weight that was added the name of the one it equals.
        Where no weight is shared, `content` itself.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no network.
    """
    proto = onnx.ModelProto.FromString(content)
    weights = {
        one.name: one
        for one in proto.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and one.dims
    }
    fresh = _new_names(proto)
    is_changed = _with_own_dequantizers(proto, weights.keys(), fresh)
    added = {}
    for name, uses in _uses(proto, weights.keys()).items():
        for node, place in uses[1:]:
            copy = proto.graph.initializer.add()
            copy.CopyFrom(weights[name])
            copy.name = node.input[place] = next(fresh)
            added[copy.name] = name
    return (proto.SerializeToString() if is_changed or added else content), added


def _with_own_dequantizers(
    proto: onnx.ModelProto, weights: Collection[str], fresh: Iterator[str]
) -> bool:
    """Give each reader of a dequantized weight a DequantizeLinear of its own; whether one had none."""
    graphs = list(proto_graphs(proto.graph))
    of_weights = {
        node.output[0]: node
        for graph in graphs
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    made: dict[str, list[onnx.NodeProto]] = {}
    for output, uses in _uses(proto, of_weights.keys()).items():
        for reader, place in uses[1:]:
            copy = onnx.NodeProto()
            copy.CopyFrom(of_weights[output])
            copy.name = copy.output[0] = reader.input[place] = next(fresh)
            made.setdefault(output, []).append(copy)
    for graph in graphs:
        for position in reversed(range(len(graph.node))):
            for copy in made.get(next(iter(graph.node[position].output), ""), ()):
                graph.node.insert(position + 1, copy)
    return bool(made)


def _uses(
    proto: onnx.ModelProto, names: Collection[str]
) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    """Which nodes read each of some tensors, and as which input."""
    found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in proto_nodes(proto.graph):
        for place, name in enumerate(node.input):
            if name in names:
                found.setdefault(name, []).append((node, place))
    return found


def _new_names(proto: onnx.ModelProto) -> Iterator[str]:
    taken = {name for node in proto_nodes(proto.graph) for name in (*node.input, *node.output)}
    taken |= {one.name for graph in proto_graphs(proto.graph) for one in graph.initializer}
    return (name for number in itertools.count() if (name := f"own.{number}") not in taken)
