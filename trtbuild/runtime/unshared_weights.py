"""Gives each layer its own copy of shared INT8 weights: for ONNX Runtime on older x86 processors.

On processors without VNNI, ONNX Runtime multiplies exactly only if it first converts signed weights to
unsigned ones (its `Avx2WeightS8ToU8Transformer`). It does so for each layer under one name, so it cannot
open a network in which two layers share a weight or a weight's zero point. Where the zero point is omitted,
ONNX Runtime 1.23 writes the unsigned one behind the end of the node's inputs.
"""

from __future__ import annotations

import collections
import itertools
import math
from typing import TYPE_CHECKING

import onnx

from trtbuild.model.traversal import proto_graphs, proto_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Set

__all__ = ["with_unshared_weights"]


def with_unshared_weights(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Give each layer of a network its own INT8 weights and their zero points.

    Weights that a caller may override stay shared, and so do names that stand for several tensors.

    Args:
        content: the bytes of the network.

    Returns:
        The bytes of the changed network, and for each added weight the name of the weight that it copies.
        `content` itself if nothing changes.

    Raises:
        google.protobuf.message.DecodeError: the bytes are not a network.
    """
    proto = onnx.ModelProto.FromString(content)
    is_changed = _with_constants_as_weights(proto)
    left_alone = _names_of_several(proto) | {value.name for value in proto.graph.input}
    fresh = _new_names(proto)
    weights = {
        one.name: one
        for one in proto.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and one.name not in left_alone
    }
    zeros = _with_zero_points(proto, weights.keys(), fresh)
    weights |= {one.name: one for one in zeros}
    is_changed |= bool(zeros)
    is_changed |= _with_own_dequantizers(proto, weights.keys(), left_alone, fresh)
    added = {}
    for name, uses in _uses(proto, weights.keys()).items():
        for node, place in uses[1:]:
            copy = proto.graph.initializer.add()
            copy.CopyFrom(weights[name])
            copy.name = node.input[place] = next(fresh)
            added[copy.name] = name
    return (proto.SerializeToString() if is_changed or added else content), added


def _with_constants_as_weights(proto: onnx.ModelProto) -> bool:
    """Turn INT8 Constant nodes into initializers, as ONNX Runtime would; return whether there are any."""
    held = [
        node
        for node in proto.graph.node
        if node.op_type == "Constant"
        and [(one.name, one.t.data_type) for one in node.attribute]
        == [("value", onnx.TensorProto.INT8)]
    ]
    for node in held:
        weight = proto.graph.initializer.add()
        weight.CopyFrom(node.attribute[0].t)
        weight.name = node.output[0]
        proto.graph.node.remove(node)
    return bool(held)


# Operator -> the input index of its weight, and of the weight's zero point.
_PLACES = {"DequantizeLinear": (0, 2), "MatMulInteger": (1, 3)}


def _with_zero_points(
    proto: onnx.ModelProto, weights: Set[str], fresh: Iterator[str]
) -> list[onnx.TensorProto]:
    """Add the omitted zero points of weights, and return them."""
    dims = {one.name: one.dims for one in proto.graph.initializer}
    zeros = []
    for node in proto_nodes(proto.graph):
        weight, place = _PLACES.get(node.op_type, (0, 0))
        if not place or weights.isdisjoint(node.input[weight : weight + 1]):
            continue
        if any(node.input[place:]) or len(node.input) < 2:  # no scale: ONNX Runtime reports it
            continue
        shape = dims.get(node.input[1], [0]) if node.op_type == "DequantizeLinear" else []
        if 0 in shape:  # computed scales
            continue
        zero = proto.graph.initializer.add(name=next(fresh), data_type=onnx.TensorProto.INT8)
        zero.dims.extend(shape)
        zero.raw_data = bytes(math.prod(shape))
        node.input.extend([""] * (place + 1 - len(node.input)))
        node.input[place] = zero.name
        zeros.append(zero)
    return zeros


def _with_own_dequantizers(
    proto: onnx.ModelProto,
    weights: Collection[str],
    left_alone: Collection[str],
    fresh: Iterator[str],
) -> bool:
    """Give each reader of a dequantized weight its own DequantizeLinear; return whether any was added."""
    graphs = list(proto_graphs(proto.graph))
    of_weights = {
        node.output[0]: node
        for graph in graphs
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and next(iter(node.input), "") in weights
        and node.output[0] not in left_alone
    }
    given_out = {value.name for graph in graphs for value in graph.output}
    made: dict[str, list[onnx.NodeProto]] = {}
    for output, uses in _uses(proto, of_weights.keys()).items():
        for reader, place in uses if output in given_out else uses[1:]:
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
    """For each of some tensors, the nodes that read it and at which input index."""
    found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in proto_nodes(proto.graph):
        for place, name in enumerate(node.input):
            if name in names:
                found.setdefault(name, []).append((node, place))
    return found


def _names_of_several(proto: onnx.ModelProto) -> set[str]:
    """The names that several graphs define, each for another tensor, as the branches of an If may."""
    given = collections.Counter(
        name
        for graph in proto_graphs(proto.graph)
        for name in {
            *(one.name for one in (*graph.input, *graph.initializer)),
            *(name for node in graph.node for name in node.output),
        }
    )
    return {name for name, count in given.items() if count > 1}


def _new_names(proto: onnx.ModelProto) -> Iterator[str]:
    taken = {name for node in proto_nodes(proto.graph) for name in (*node.input, *node.output)}
    taken |= {one.name for graph in proto_graphs(proto.graph) for one in graph.initializer}
    return (name for number in itertools.count() if (name := f"own.{number}") not in taken)
