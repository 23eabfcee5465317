"""Who reads a tensor: the question before every fusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.passes.declined import Declined

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["label", "maker", "only_reader", "require_private", "sole_node"]


def label(node: ir.Node) -> str:
    """Name a node for a report, by its first output where it has no name."""
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type


def maker(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node of the ONNX domain that makes `value`, if it is one of `op_types`."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type not in op_types:
        return None
    return node


def require_private(value: ir.Value, reader: ir.Node) -> None:
    """Check that nobody but `reader`, in the same graph, ever sees `value`.

    Raises:
        Declined: it has another reader, is an output, or is captured by an If, Loop or Scan body.
    """
    if value.is_graph_output():
        raise Declined(f"'{value.name}' is an output of the graph")
    producer = value.producer()
    for user, _ in value.uses():
        if user is not reader:
            raise Declined(f"'{value.name}' is also read by {user.op_type} '{label(user)}'")
    if producer is not None and producer.graph is not reader.graph:
        raise Declined(f"'{value.name}' comes from the graph around this body")


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node, in the same graph, that reads `value`; None where others see it."""
    users = value.consumers()
    if len(users) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    if producer is not None and producer.graph is not users[0].graph:
        return None
    return users[0]


def sole_node(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Return the only reader of `value` if it is one of `op_types` of the ONNX domain."""
    node = only_reader(value)
    if node is None or node.domain != "" or node.op_type not in op_types:
        return None
    return node
