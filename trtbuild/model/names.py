"""Names of tensors: every one unique over the graph and all its bodies.

ONNX lets sibling bodies use one name twice. That breaks rewrites that move nodes between graphs, and the
outer scopes of ONNX Runtime, so new names are unique over all graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.traversal import all_graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

__all__ = ["Names", "defined_values", "rename_clashes", "value_name"]


def value_name(value: ir.Value | None) -> str:
    """Return the name of a tensor; empty for an input that is left out, and for a tensor without a name."""
    return "" if value is None else value.name or ""


def defined_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Return every tensor that `graph` itself defines: inputs, initializers, outputs of nodes."""
    yield from graph.inputs
    for value in graph.initializers.values():
        if not value.is_graph_input():
            yield value
    for node in graph:
        for output in node.outputs:
            if output.name != "":
                yield output


class Names:
    """The names in use in one model, and new ones on demand."""

    def __init__(self, model: ir.Model) -> None:
        self._used = {
            value.name or "" for graph in all_graphs(model.graph) for value in defined_values(graph)
        }
        self._next: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """Reserve and return a name that starts with `hint` and that nothing has."""
        name = hint
        number = self._next.get(hint, 1)
        while name in self._used:
            number += 1
            name = f"{hint}_{number}"
        self._next[hint] = number
        self._used.add(name)
        return name

    def release(self, name: str) -> None:
        """Free a name that nothing has any more; `fresh` gives it again as if it had never been used."""
        self._used.discard(name)
        self._next.clear()


def rename_clashes(model: ir.Model, names: Names | None = None) -> Iterator[tuple[str, str]]:
    """Rename inner tensors that share a name with another one; yield the old and the new names.

    Args:
        model: changed in place.
        names: the names in use in `model`, if the caller goes on making names.
    """
    taken = [v.name for graph in all_graphs(model.graph) for v in defined_values(graph)]
    if len(set(taken)) == len(taken):
        return
    names = Names(model) if names is None else names
    kept = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    seen: set[str | None] = set()
    for graph in all_graphs(model.graph):
        outer = graph is model.graph
        for value in list(defined_values(graph)):
            at_interface = outer and (value.is_graph_input() or value.is_graph_output())
            old = value.name or ""
            if not at_interface and (old in seen or old in kept):
                value.name = names.fresh(old)
                yield old, value.name
            seen.add(value.name)
