"""How a pass says why it does not rewrite a near match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.traversal import label

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Declined", "require_private"]


class Declined(Exception):  # noqa: N818 - a verdict on a match, not a fault
    """A near match that is not rewritten.

    Args:
        reason: one sentence without a full stop, for example "its output is read twice".
    """


def require_private(value: ir.Value, reader: ir.Node) -> None:
    """Check that only `reader`, in the same graph, reads `value`.

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
