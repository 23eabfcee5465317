"""The tensors that flow between the operators of a trace, and which axis of them is that of the channels.

Autograd knows both: each edge names the output that it comes from, and the shape of its tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch_pruning as tp
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ChannelWidths", "Edge", "edges_of", "joined_axis", "shape_of", "takes_slices"]

_TYPES = tp.ops.OPTYPE
_REPEATING = ("Add", "Sub", "Rsub", "Mul", "Div", "Maximum", "Minimum", "Expand")
"""Operators, by autograd's names, that combine one channel with each of several (one map for all)."""
_LAST = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.LSTM)
"""Their channels are on the last axis; those of others on the second."""


@dataclass(frozen=True)
class Edge:
    """The tensor that flows from one operator to another.

    Attributes:
        source: the operator that makes it.
        output: index of the source's output.
        position: index of the argument that takes it.
        forward, backward: the library's dependencies along the edge and against it.
    """

    source: Any
    output: int
    position: int
    forward: Any
    backward: Any

    def follow(self, maps: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]]) -> None:
        """Set the mappings of channel indices along the edge and back."""
        self.forward.index_mapping = _Fixed([_chained([there for there, _ in maps]), None])
        self.backward.index_mapping = _Fixed([_chained([back for _, back in reversed(maps)]), None])


class _Fixed(list[Any]):
    """A list of mappings that ignores assignments, so that the library cannot replace them."""

    def __setitem__(self, *_: Any) -> None:
        """Do nothing."""


def _chained(maps: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def mapped(indices: Any) -> Any:
        for one in maps:
            indices = one(indices)
        return indices

    return mapped


def edges_of(graph: Any) -> dict[Any, list[Edge]]:
    """Return operator -> the edges into it, without operators with ambiguous edges (layers called twice)."""
    by_function = {node.grad_fn: node for node in graph.module2node.values()}
    taken: dict[tuple[Any, Any], int] = {}
    found = {}
    for node in graph.module2node.values():
        functions = getattr(node.grad_fn, "next_functions", ())
        into = [
            (by_function[function], output, position)
            for position, (function, output) in enumerate(functions)
            if function in by_function
        ]
        if [one for one, _, _ in into] != node.inputs:
            continue
        edges = []
        for index, (source, output, position) in enumerate(into):
            nth = taken.get((source, node), 0)
            taken[source, node] = nth + 1
            places = [k for k, other in enumerate(source.outputs) if other is node]
            forward = source.dependencies[len(source.inputs) + places[nth]]
            edges.append(Edge(source, output, position, forward, node.dependencies[index]))
        found[node] = edges
    return found


def takes_slices(node: Any) -> bool:
    """Return whether an operator cuts contiguous pieces out of a tensor."""
    if node.type == _TYPES.SLICE:
        return bool(node.module.step == 1)
    return bool(node.type == _TYPES.SPLIT)


def joined_axis(node: Any, shape: tuple[int, ...]) -> int:
    """Return the axis that an operator cuts or joins, for a tensor of this shape."""
    return _whole(node.grad_fn._saved_dim, shape)


def _whole(axis: int, shape: tuple[int, ...]) -> int:
    """An axis counted from 0; autograd may give -1 as an unsigned 64-bit number."""
    given = int(axis)
    return (given if given < 2**63 else given - 2**64) % max(len(shape), 1)


def shape_of(function: Any, output: int) -> tuple[int, ...]:
    """Return the shape of an output of an autograd function; empty if autograd does not know it."""
    given = getattr(function, "_input_metadata", ())
    return tuple(given[output].shape) if output < len(given) else ()


class ChannelWidths:
    """The number of channels on an edge, and their axis."""

    def __init__(self, graph: Any, edges: dict[Any, list[Edge]]) -> None:
        self._graph, self._edges = graph, edges
        self._known: dict[tuple[Any, int], tuple[int, int | None] | None] = {}

    def is_along(self, node: Any) -> bool:
        """Return whether `node` cuts or joins along the channels, not along another axis."""
        found = []
        for edge in self._edges[node]:
            shape = shape_of(edge.source.grad_fn, edge.output)
            known = self._of(edge.source, edge.output)
            if known is None or not shape:
                continue
            width, axis = known
            cut = joined_axis(node, shape)
            found.append(shape[cut] == width and axis in (cut, None))
        return bool(found) and all(found)

    def is_repeated(self, edge: Edge, into: Any) -> bool:
        """Return whether `edge` has one channel that is added to, or multiplied with, each of several."""
        if not type(into.grad_fn).__name__.startswith(_REPEATING):
            return False
        given, made = shape_of(edge.source.grad_fn, edge.output), shape_of(into.grad_fn, 0)
        known = self._of(edge.source, edge.output)
        if known is None or known[1] is None or known[1] >= len(given) or len(given) > len(made):
            return False
        axis = known[1]
        return given[axis] == 1 < made[axis + len(made) - len(given)]

    def _of(self, node: Any, output: int) -> tuple[int, int | None] | None:
        """The channels of an output and their axis; None if no layer determines them."""
        key = (node, output)
        if key not in self._known:
            self._known[key] = None  # for cycles
            self._known[key] = self._found(node, output)
        return self._known[key]

    def _found(self, node: Any, output: int) -> tuple[int, int | None] | None:
        shape = shape_of(node.grad_fn, output)
        width = None if node.type == _TYPES.PARAMETER else self._graph.get_out_channels(node)
        if width is not None:
            return int(width), len(shape) - 1 if isinstance(node.module, _LAST) else 1
        edges = self._edges.get(node, [])
        befores = [(edge, self._of(edge.source, edge.output)) for edge in edges]
        before = max(
            ((e, known) for e, known in befores if known), key=lambda one: one[1][0], default=None
        )
        if before is None:
            return None
        edge, (width, axis) = before
        if shape and (takes_slices(node) or node.type == _TYPES.CONCAT) and self.is_along(node):
            return shape[joined_axis(node, shape)], axis
        return width, _moved_axis(node, shape_of(edge.source.grad_fn, edge.output), shape, axis)


def _moved_axis(
    node: Any, before: tuple[int, ...], after: tuple[int, ...], axis: int | None
) -> int | None:
    """Where an operator puts the channel axis; None if that is unknown."""
    name = type(node.grad_fn).__name__
    if axis is None or (len(before) != len(after) and "View" not in name):
        return None
    if name.startswith("Transpose"):
        first, second = (
            _whole(node.grad_fn._saved_dim0, after),
            _whole(node.grad_fn._saved_dim1, after),
        )
        return {first: second, second: first}.get(axis, axis)
    if name.startswith("Permute"):
        return [_whole(dim, after) for dim in node.grad_fn._saved_dims].index(axis)
    if "View" in name and before[: axis + 1] != after[: axis + 1]:
        return None
    return axis
