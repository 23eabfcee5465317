"""Matches the nodes of two networks: by name, and by what they compute if names changed.

Names alone mislead: an exporter that numbers its nodes gives another layer the same name once a node
before it is gone. So a name counts first only if both nodes compute the same (operator, attributes, shapes
of constants, nearly the same weight). The rest is matched by what it computes: its weight, its matched
neighbours, everything that leads to it; names alone come last.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.diff.bodies import described_bodies, described_tensor, read_by
from trtbuild.diff.defaults import is_default
from trtbuild.diff.facts import computing_nodes, weight_of
from trtbuild.diff.reads import ends_of, origin
from trtbuild.enums import StrEnum
from trtbuild.model.constants import constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.qdq import is_qdq
from trtbuild.model.shapes import static_dims
from trtbuild.model.traversal import has_bodies, label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["MatchedBy", "Pair", "match_names", "match_nodes"]

# Relative distance |a - b| / |a| of two weights. Rounding to 8 bits gives hundredths, unrelated weights 1.4.
_NEAR = 0.5
# Number of elements of a weight that are compared, spread over all of it.
_MOST_ELEMENTS = 1 << 16


class MatchedBy(StrEnum):
    """How two nodes were matched."""

    NAME = "name"
    COMPUTATION = "computation"


@dataclass(frozen=True)
class Pair:
    """Two nodes that correspond to each other.

    Attributes:
        first, second: their indices in the two lists.
        by: how they were matched.
        otherwise: how they compute differently, in words; empty if they have the same operator, attributes,
            shapes of constants, bodies, nodes before them, and outputs of the network.
    """

    first: int
    second: int
    by: MatchedBy
    otherwise: str = ""


def match_names(first: Sequence[str], second: Sequence[str]) -> list[Pair]:
    """Match the names that both lists have, for the case that only names are known."""
    places = {name: place for place, name in enumerate(second)}
    return [
        Pair(place, places[name], MatchedBy.NAME)
        for place, name in enumerate(first)
        if name in places
    ]


def match_nodes(first: ir.Model, second: ir.Model) -> list[Pair]:
    """Match `computing_nodes` of `first` with those of `second`; return pairs in the order of `first`.

    Nodes with weights are matched first, since a weight identifies best; then neighbours of matched nodes,
    names, and nodes with the same computation from the inputs on. Cost: a few passes over all nodes and
    edges.
    """
    search = _Search(_Network(first), _Network(second))
    search.by_name(alike=True, weighted=True)
    search.by_key(lambda network, place: network.own[place], weighted=True)
    search.by_neighbours("to")
    search.by_neighbours("from")
    search.by_name(alike=True)
    search.by_key(lambda network, place: network.upstream[place])
    search.by_neighbours("to")
    search.by_neighbours("from")
    search.by_name()
    return sorted(search.pairs(), key=lambda pair: pair.first)


class _Network:
    """A network prepared for matching: each node by itself, and with everything that leads to it."""

    def __init__(self, model: ir.Model) -> None:
        self.nodes = tuple(computing_nodes(model))
        self.names = tuple(map(label, self.nodes))
        self.places = {node: place for place, node in enumerate(self.nodes)}
        opsets = model.opset_imports
        self.own = tuple(_own(node, opsets) for node in self.nodes)
        self.samples = tuple(map(_sample, self.nodes))
        inputs = enumerate(model.graph.inputs)
        self._inputs = {value: f"input {place}" for place, value in inputs}
        self.upstream = tuple(self._upstream())
        outputs = {value: place for place, value in enumerate(model.graph.outputs)}
        self.ends = tuple(
            sorted((index, outputs[value]) for index, value in ends_of(node)) for node in self.nodes
        )

    def _upstream(self) -> Iterator[str]:
        keys = dict(self._inputs)
        for node, own in zip(self.nodes, self.own):
            before = (_key_of(origin(value), keys) for value in read_by(node))
            found = _digest(own, *before)
            keys.update({value: f"{found} {place}" for place, value in enumerate(node.outputs)})
            yield found

    def sources(self, place: int) -> tuple[int | str, ...]:
        """Return the source of each input of a node: a node's index, a network input, or a constant."""
        found: list[int | str] = []
        for value in read_by(self.nodes[place]):
            before = origin(value)
            maker = None if before is None else before.producer()
            known = self.places.get(maker) if maker is not None else None
            found.append(_key_of(before, self._inputs) if known is None else known)
        return tuple(found)

    def neighbours(self, place: int) -> Iterator[tuple[str, int, int]]:
        """Yield (direction, input index, node index) for the neighbours of a node, skipping Q/DQ."""
        node = self.nodes[place]
        for index, value in enumerate(read_by(node)):
            before = origin(value)
            maker = None if before is None else before.producer()
            if maker is not None and maker in self.places:
                yield "from", index, self.places[maker]
        for reader, index in _readers(node):
            if reader in self.places:
                yield "to", index, self.places[reader]


class _Search:
    """The matches so far: node indices of the first network -> those of the second."""

    def __init__(self, first: _Network, second: _Network) -> None:
        self._first, self._second = first, second
        self._matched: dict[int, int] = {}
        self._taken: set[int] = set()

    def pairs(self) -> Iterator[Pair]:
        """Return the matches."""
        for one, other in self._matched.items():
            named = self._first.names[one] == self._second.names[other]
            by = MatchedBy.NAME if named else MatchedBy.COMPUTATION
            yield Pair(one, other, by, self._otherwise(one, other))

    def _otherwise(self, one: int, other: int) -> str:
        if self._first.own[one] != self._second.own[other]:
            has_body = has_bodies(self._first.nodes[one])
            return "another body or attribute" if has_body else "other attributes or shapes"
        left, right = (net.sources(at) for net, at in ((self._first, one), (self._second, other)))
        mapped = tuple(self._matched.get(s, s) if isinstance(s, int) else s for s in left)
        if mapped != right:
            return "reads from other nodes"
        if self._first.ends[one] != self._second.ends[other]:
            return "gives other outputs of the network"
        return ""

    def by_name(self, *, alike: bool = False, weighted: bool = False) -> None:
        """Match nodes with the same name and operator.

        Args:
            alike: only nodes with the same computation and nearly the same weight.
            weighted: only nodes with a weight.
        """
        places = {name: place for place, name in enumerate(self._second.names)}
        for one in self._open(weighted=weighted):
            other = places.get(self._first.names[one])
            if other is None or other in self._taken:
                continue
            node, twin = self._first.nodes[one], self._second.nodes[other]
            same = self._first.own[one] == self._second.own[other]
            if (node.domain, node.op_type) == (twin.domain, twin.op_type) and (
                not alike or (same and self._distance(one, other) < _NEAR)
            ):
                self._add(one, other)

    def by_key(self, key: Callable[[_Network, int], str], *, weighted: bool = False) -> None:
        """Match nodes with the same key and nearly the same weight; among several, the nearest."""
        waiting = defaultdict(list)
        for place in range(len(self._second.nodes)):
            if place not in self._taken:
                waiting[key(self._second, place)].append(place)
        for one in self._open(weighted=weighted):
            self._add_nearest(one, waiting.get(key(self._first, one), ()))

    def by_neighbours(self, side: str) -> None:
        """Match neighbours of matched nodes that compute the same, until there are no more.

        Args:
            side: ``to`` for readers of matched nodes, ``from`` for nodes that matched nodes read. ``to`` is
                used first, because what a node is follows from what it reads.
        """
        waiting = list(self._matched)
        while waiting:
            one = waiting.pop()
            around = defaultdict(list)
            for direction, index, place in self._second.neighbours(self._matched[one]):
                around[direction, index, self._second.own[place]].append(place)
            for direction, index, place in self._first.neighbours(one):
                if direction != side:
                    continue
                others = around.get((direction, index, self._first.own[place]), ())
                if place not in self._matched and self._add_nearest(place, others):
                    waiting.append(place)

    def _open(self, *, weighted: bool) -> list[int]:
        samples = self._first.samples
        return [
            place
            for place in range(len(samples))
            if place not in self._matched and not (weighted and samples[place] is None)
        ]

    def _add_nearest(self, one: int, others: Sequence[int]) -> bool:
        left = [other for other in others if other not in self._taken]
        if not left:
            return False
        name = self._first.names[one]
        far = [(self._distance(one, k), self._second.names[k] != name, k) for k in left]
        distance, _, nearest = min(far)
        if distance < _NEAR:
            self._add(one, nearest)
        return distance < _NEAR

    def _add(self, one: int, other: int) -> None:
        self._matched[one] = other
        self._taken.add(other)

    def _distance(self, one: int, other: int) -> float:
        """Relative distance of two nodes' weights; 0 without weights, infinite if shapes differ."""
        left, right = self._first.samples[one], self._second.samples[other]
        if left is None or right is None:
            return 0.0
        if left.shape != right.shape:
            return math.inf
        length, difference = (float(np.linalg.norm(v)) for v in (left, left - right))
        return difference / length if length else (math.inf if difference else 0.0)


def _readers(node: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    waiting = list(node.outputs)
    while waiting:
        for use in waiting.pop().uses():
            if is_qdq(use.node):
                waiting += use.node.outputs
            else:
                yield use.node, use.idx


def _key_of(value: ir.Value | None, keys: dict[ir.Value, str]) -> str:
    if value is None:
        return ""
    return keys.get(value, "constant")


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _own(node: ir.Node, opsets: Mapping[str, int]) -> str:
    """A digest of a node without names and Q/DQ: operator, attributes, shapes of constants, bodies."""

    def attributes(of: ir.Node) -> Iterator[str]:
        return _attributes(of, opsets)

    constants = (
        f"{place}:{static_dims(before)}"
        for place, value in enumerate(read_by(node))
        if (before := origin(value)) is not None and constant_tensor(before) is not None
    )
    inside = described_bodies(node, attributes)
    described = (*attributes(node), "|", *constants, "|", *inside)
    return _digest(node.domain, node.op_type, str(len(node.outputs)), *described)


def _attributes(node: ir.Node, opsets: Mapping[str, int]) -> Iterator[str]:
    for name in sorted(node.attributes):
        if not is_default(node, name, opsets):
            yield f"{name}={_attribute(node.attributes[name])}"


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return attribute.ref_attr_name or ""
    if attribute.type == ir.AttributeType.TENSOR:
        return described_tensor(attribute.as_tensor())
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "a graph"
    return repr(attribute.value)


def _sample(node: ir.Node) -> NDArray[np.float32] | None:
    """Elements of a node's weight, spread over all of it; None without a weight."""
    weight = weight_of(node)
    if weight is None:
        return None
    step = (
        max(1, weight.size // _MOST_ELEMENTS) | 1
    )  # odd, so that the elements come from every channel for the usual sizes
    return weight.reshape(-1)[::step].astype(np.float32)
