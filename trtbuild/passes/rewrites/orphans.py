"""Nodes, constants and initialisers that nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.edits import drop_unread_initializers
from trtbuild.model.traversal import bodies
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["RemoveUnread"]


class RemoveUnread(Pass):
    """Remove initialisers, constants and branches that nobody reads.

    Pattern: a node none of whose outputs is read; an initialiser without reader.
    Conditions: no graph output; no graph input (overridable initialisers included); bodies of If,
        Loop and Scan count as readers.
    Effect: it is gone, and so is whatever was there only for it.
    Source: NCNN ``eliminate_orphaned_memorydata``; dead code elimination.
    """

    name = "remove_unread"

    def run(self, edit: Editor) -> None:
        """Walk each graph from its end to its start, then look at the initialisers."""
        self._remove_nodes(edit.model.graph, edit)
        for name in drop_unread_initializers(edit.model):
            edit.note(name, "initialiser", "nobody reads it")

    def _remove_nodes(self, graph: ir.Graph, edit: Editor) -> None:
        for node in reversed(graph):
            if node.graph is None:
                continue
            if any(out.uses() or out.is_graph_output() for out in node.outputs):
                for body in bodies(node):
                    self._remove_nodes(body, edit)
            else:
                edit.report(node, "nobody reads it")
                edit.drop(node)
