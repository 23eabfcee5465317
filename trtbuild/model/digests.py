"""Digests of a network: which network a calibration or engine belongs to, and whether passes changed it.

`graph_digest` and `weights_digest` are written into files and include names, so they must never change.
`Hasher` compares rounds of passes: its digests do not depend on inner names or on the order of
independent nodes.
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.model.constants import constant_tensor, tensor_bytes
from trtbuild.model.graph_library import ir

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GraphDigest", "Hasher", "graph_digest", "weights_digest"]


def graph_digest(model: ir.Model) -> str:
    """SHA-256 over the structure: interface, nodes, attributes and edges, not the weight values."""
    digest = hashlib.sha256()
    _add_graph(digest, model.graph)
    return f"sha256:{digest.hexdigest()}"


def weights_digest(model: ir.Model) -> str:
    """SHA-256 over every initializer's name, dtype, shape and bytes, in order of name in each graph.

    The digest is kept for as long as the network holds the same tensors, whose contents never change.
    """
    held = [
        (name, value.const_value)
        for graph in model.graphs()
        for name, value in sorted(graph.initializers.items())
        if value.const_value is not None
    ]
    tensors = tuple((name, id(tensor)) for name, tensor in held)
    known = _OF_WEIGHTS.get(model)
    if known is None or known.tensors != tensors:
        digest = hashlib.sha256()
        for name, tensor in held:
            _add(digest, (name,))
            _add_tensor(digest, tensor)
        known = _WeightsDigest(tensors, [one for _, one in held], f"sha256:{digest.hexdigest()}")
        _OF_WEIGHTS[model] = known
    return known.text


@dataclass(frozen=True)
class _WeightsDigest:
    """A digest, and the tensors with their names; holding the tensors keeps their ids unique."""

    tensors: tuple[tuple[str, int], ...]
    held: list[ir.TensorProtocol]
    text: str


_OF_WEIGHTS: weakref.WeakKeyDictionary[ir.Model, _WeightsDigest] = weakref.WeakKeyDictionary()


def _add(digest: hashlib._Hash, parts: Iterable[str]) -> None:
    for part in parts:
        digest.update(part.encode() + b"\0")


def _add_tensor(digest: hashlib._Hash, tensor: ir.TensorProtocol) -> None:
    _add(digest, (str(tensor.dtype), str(tuple(tensor.shape))))
    digest.update(tensor_bytes(tensor))


def _add_graph(digest: hashlib._Hash, graph: ir.Graph) -> None:
    for values in (graph.inputs, graph.outputs):
        _add(digest, (f"{v.name}:{v.dtype}:{v.shape}" for v in values))
    _add(digest, sorted(graph.initializers))
    for node in graph:
        _add(digest, (node.domain, node.op_type))
        _add(digest, (value.name or "" if value is not None else "" for value in node.inputs))
        _add(digest, (value.name or "" for value in node.outputs))
        for name in sorted(node.attributes):
            _add_attribute(digest, node.attributes[name])


def _add_attribute(digest: hashlib._Hash, attribute: ir.Attr) -> None:
    _add(digest, (attribute.name,))
    if attribute.type == ir.AttributeType.GRAPH:
        _add_graph(digest, attribute.as_graph())
    elif attribute.type == ir.AttributeType.GRAPHS:
        for graph in attribute.as_graphs():
            _add_graph(digest, graph)
    elif attribute.type == ir.AttributeType.TENSOR:
        _add_tensor(digest, attribute.as_tensor())
    else:
        _add(digest, (repr(attribute.value),))


_READ_LIMIT = 1 << 16
"""Bytes. A larger constant is identified by the object or file region that holds it."""


@dataclass(frozen=True)
class GraphDigest:
    """Two 64-bit digests of one graph, comparable only in this process.

    Attributes:
        content: includes every constant: equal digests mean that nothing changed.
        structure: leaves out the values of float constants, since two passes that undo each other may
            change their last bits.
    """

    content: int
    structure: int


class Hasher:
    """Hashes a graph after each round of one optimization; remembers the constants that it has read."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[ir.TensorProtocol, int]] = {}

    def digest(self, model: ir.Model) -> GraphDigest:
        """Hash `model` as it stands now. Cost: one step per node."""
        content, structure = _GraphHash(self).of(model.graph)
        around = (
            tuple(value.name for value in model.graph.inputs),  # with those that nothing reads
            tuple(sorted(model.opset_imports.items())),
            tuple(self._function(one) for one in model.functions.values()),
        )
        return GraphDigest(hash((content, around)), hash((structure, around)))

    def _function(self, function: ir.Function) -> tuple[object, ...]:
        imports = tuple(sorted(function.opset_imports.items()))
        return function.identifier(), imports, _GraphHash(self).of(function.graph)

    def tensor(self, tensor: ir.TensorProtocol) -> int:
        """Hash the elements of a constant, or for a large one what identifies it."""
        known = self._tensors.get(id(tensor))
        if known is None:
            known = (tensor, _tensor_digest(tensor))  # holding the tensor keeps its id unique
            self._tensors[id(tensor)] = known
        return known[1]


def _tensor_digest(tensor: ir.TensorProtocol) -> int:
    if isinstance(tensor, ir.ExternalTensor):
        return hash((str(tensor.path), tensor.offset, tensor.length))
    if tensor.nbytes > _READ_LIMIT:
        return hash((id(tensor),))
    return hash(tensor_bytes(tensor))


_Pair = tuple[int, int]
"""Two hashes of a part of a graph: of everything, and without the values of float constants."""


class _GraphHash:
    """One walk over one graph; its bodies share the hashes of outer tensors."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._values: dict[ir.Value, _Pair] = {}

    def of(self, graph: ir.Graph) -> _Pair:
        """Hash a graph or a body: its inputs by place, its nodes in any order."""
        for place, value in enumerate(graph.inputs):
            self._values[value] = _both(("input", value.name, place))
        nodes = [self._node(node) for node in graph]
        ends = [(value.name, self._value(value)) for value in graph.outputs]
        count = len(graph.initializers)
        first, second = (
            hash((
                tuple(sorted(pair[side] for pair in nodes)),
                tuple((name, pair[side]) for name, pair in ends),
                count,
            ))
            for side in (0, 1)
        )  # fmt: skip
        return first, second

    def _node(self, node: ir.Node) -> _Pair:
        names = sorted(node.attributes) if node.attributes else ()
        attributes = [(key, self._attribute(node, key)) for key in names]
        inputs = [(0, 0) if value is None else self._value(value) for value in node.inputs]
        kind = (node.domain, node.op_type)
        first, second = [
            hash((
                kind,
                tuple([(key, pair[side]) for key, pair in attributes]),
                tuple([pair[side] for pair in inputs]),
            ))
            for side in (0, 1)
        ]  # fmt: skip
        for place, value in enumerate(node.outputs):
            self._values[value] = hash((first, place)), hash((second, place))
        return first, second

    def _value(self, value: ir.Value) -> _Pair:
        known = self._values.get(value)
        if known is None:
            known = self._constant(value)
            self._values[value] = known
        return known

    def _constant(self, value: ir.Value) -> _Pair:
        tensor = constant_tensor(value)
        return _both(("unknown", value.name)) if tensor is None else self._tensor(tensor)

    def _tensor(self, tensor: ir.TensorProtocol) -> _Pair:
        kind = (str(tensor.dtype), str(tensor.shape))
        content = hash((kind, self._hasher.tensor(tensor)))
        return content, hash(kind) if tensor.dtype.is_floating_point() else content

    def _attribute(self, node: ir.Node, key: str) -> _Pair:
        attribute = node.attributes[key]
        value: Any = attribute.value
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            return self.of(value)
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            return self._tensor(value)
        if attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            pairs = [self.of(item) for item in value]
            return hash(tuple(pair[0] for pair in pairs)), hash(tuple(pair[1] for pair in pairs))
        return _both((repr(value), attribute.ref_attr_name))


def _both(parts: tuple[object, ...]) -> _Pair:
    found = hash(parts)
    return found, found
