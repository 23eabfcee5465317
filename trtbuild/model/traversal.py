"""Walks through a network: the graphs inside nodes, the makers and readers of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.graph_library import ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

__all__ = [
    "all_graphs",
    "all_nodes",
    "attribute_tensors",
    "bodies",
    "flattens_one_pixel",
    "has_bodies",
    "label",
    "maker",
    "nodes_by_name",
    "only_reader",
    "proto_bodies",
    "proto_graphs",
    "proto_nodes",
    "proto_tensors",
    "sole_node",
    "tensors_by_name",
    "values_by_name",
    "values_of",
]


_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""The operators of the ONNX domain that hold graphs. The attributes of all others are not searched,
since every pass asks for the bodies of every node."""


def _may_have_bodies(node: ir.Node) -> bool:
    return node.op_type in _WITH_BODIES or node.domain != ""


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Return the graphs directly inside `node`."""
    if not _may_have_bodies(node):
        return
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def has_bodies(node: ir.Node) -> bool:
    """Return whether there is a graph inside `node`."""
    return _may_have_bodies(node) and next(bodies(node), None) is not None


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Return every node of `graph`, each followed by the nodes of its bodies.

    Nodes may be added and removed during the walk: a removed node's bodies are not entered.
    """
    for node in graph:
        yield node
        if _may_have_bodies(node) and node.graph is graph:
            for body in bodies(node):
                yield from all_nodes(body)


def all_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Return `graph` and every graph inside it."""
    yield graph
    for node in graph:
        if _may_have_bodies(node):
            for body in bodies(node):
                yield from all_graphs(body)


def nodes_by_name(graph: ir.Graph) -> dict[str, ir.Node]:
    """Return the nodes of `graph` that have a name, without those in bodies."""
    return {node.name: node for node in graph if node.name}


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Return the inputs of `graph` and what its nodes compute, in order, without those in bodies."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def values_by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the values of `values_of` that have a name."""
    return {value.name: value for value in values_of(graph) if value.name}


def tensors_by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the values of `values_by_name`, and the weights of `graph`."""
    return {**values_by_name(graph), **graph.initializers}


def label(node: ir.Node) -> str:
    """Name a node for a report, by its first output where it has no name."""
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type


def maker(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node of the ONNX domain that makes `value`, if it is one of `op_types`."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type not in op_types:
        return None
    return node


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the only reader of `value`; None if it has others, is an output, or is read in a body."""
    users = value.consumers()
    if len(users) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    if producer is not None and producer.graph is not users[0].graph:
        return None
    return users[0]


def sole_node(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Return the only reader of `value` if it is one of `op_types` of the ONNX domain, else None."""
    node = only_reader(value)
    if node is None or node.domain != "" or node.op_type not in op_types:
        return None
    return node


def proto_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Return `graph` and every graph inside it, before it becomes a graph of onnx_ir."""
    yield graph
    for node in graph.node:
        if node.attribute:  # most nodes of a large graph have none
            for body in proto_bodies(node):
                yield from proto_graphs(body)


def proto_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Return every node of `graph` and of the graphs inside it."""
    for one in proto_graphs(graph):
        yield from one.node


def proto_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Return every weight of a network, then every tensor that `attribute_tensors` returns."""
    for graph in proto_graphs(proto.graph):
        yield from graph.initializer
    yield from attribute_tensors(proto)


def attribute_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Return every tensor that a node of a network or of its functions holds as an attribute."""
    for node in (
        *_nodes_below(proto.graph),
        *(n for f in proto.functions for n in _nodes_below(f)),
    ):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _nodes_below(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Return every node with attributes, in a graph or function and in the graphs inside it."""
    for node in graph.node:
        if node.attribute:
            yield node
            for body in proto_bodies(node):
                yield from _nodes_below(body)


def proto_bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Return the graphs directly inside `node`."""
    for attribute in node.attribute if node.attribute else ():
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def flattens_one_pixel(node: ir.Node) -> bool:
    """Return whether `node` removes the two axes of length 1 that a GlobalAveragePool leaves."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return (
        node.op_type in ("Flatten", "Reshape", "Squeeze")
        and source is not None
        and source.op_type == "GlobalAveragePool"
    )
