"""Graphs inside nodes: the branches of If, the bodies of Loop and Scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

__all__ = [
    "all_graphs",
    "all_nodes",
    "bodies",
    "has_bodies",
    "proto_bodies",
    "proto_graphs",
    "proto_nodes",
]


_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""The operators of the ONNX domain that hold graphs. Others need not be looked through: this is
asked of every node by every pass."""


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Return the graphs directly inside `node`."""
    if node.domain == "" and node.op_type not in _WITH_BODIES:
        return
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def has_bodies(node: ir.Node) -> bool:
    """Whether there is a graph inside `node`."""
    return next(bodies(node), None) is not None


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Return every node of `graph`, each followed by the nodes of its bodies.

    Nodes may be added and removed on the way: a removed node's bodies are not entered.
    """
    for node in graph:
        yield node
        if (node.op_type in _WITH_BODIES or node.domain) and node.graph is graph:
            for body in bodies(node):
                yield from all_nodes(body)


def all_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Return `graph` and every graph inside it."""
    yield graph
    for node in graph:
        for body in bodies(node):
            yield from all_graphs(body)


def proto_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Return `graph` and every graph inside it, before it becomes a graph of onnx_ir."""
    yield graph
    for node in graph.node:
        for body in proto_bodies(node):
            yield from proto_graphs(body)


def proto_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Return every node of `graph` and of the graphs inside it."""
    for one in proto_graphs(graph):
        yield from one.node


def proto_bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Return the graphs directly inside `node`."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
