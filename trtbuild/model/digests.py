"""Digests of a network: which one a calibration or an engine belongs to, and whether passes changed it.

`graph_digest` and `weights_digest` are written into files; they see names, and they stay what they are.
`Hasher` is asked after each round of passes: its digests do not depend on inner names or on the order of
independent nodes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from trtbuild.model.constants import constant_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GraphDigest", "Hasher", "graph_digest", "weights_digest"]


def graph_digest(model: ir.Model) -> str:
    """SHA-256 over the structure: interface, nodes, attributes and edges, not the weight values."""
    digest = hashlib.sha256()
    _add_graph(digest, model.graph)
    return f"sha256:{digest.hexdigest()}"


def weights_digest(model: ir.Model) -> str:
    """SHA-256 over every initializer's name, dtype, shape and bytes, in order of name in each graph."""
    digest = hashlib.sha256()
    for graph in model.graphs():
        for name, value in sorted(graph.initializers.items()):
            tensor = value.const_value
            if tensor is not None:
                _add(digest, (name,))
                _add_tensor(digest, tensor)
    return f"sha256:{digest.hexdigest()}"


def _add(digest: hashlib._Hash, parts: Iterable[str]) -> None:
    for part in parts:
        digest.update(part.encode() + b"\0")


def _add_tensor(digest: hashlib._Hash, tensor: ir.TensorProtocol) -> None:
    _add(digest, (str(tensor.dtype), str(tuple(tensor.shape))))
    digest.update(tensor.tobytes())


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
"""Bytes. A larger constant is told apart by the object or file region that holds it."""


@dataclass(frozen=True)
class GraphDigest:
    """Two digests of one graph, as hexadecimal text.

    Attributes:
        content: sees every constant, so equal means that nothing changed.
        structure: leaves out the values of float constants, because two passes that undo each other
            need not come back to the same last bit.
    """

    content: str
    structure: str


class Hasher:
    """Hashes the rounds of one optimisation; remembers the constants that it has read."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[ir.TensorProtocol, bytes]] = {}

    def digest(self, model: ir.Model) -> GraphDigest:
        """Hash `model` as it stands now. Cost: one step per node."""
        content = _GraphHash(self, floats=True).of(model.graph)
        structure = _GraphHash(self, floats=False).of(model.graph)
        return GraphDigest(content.hex(), structure.hex())

    def tensor(self, tensor: ir.TensorProtocol) -> bytes:
        """Hash the elements of a constant, or what stands for them where there are many."""
        known = self._tensors.get(id(tensor))
        if known is None:
            known = (tensor, _tensor_digest(tensor))  # keeps the tensor, so that its id stays its
            self._tensors[id(tensor)] = known
        return known[1]


def _tensor_digest(tensor: ir.TensorProtocol) -> bytes:
    if isinstance(tensor, ir.ExternalTensor):
        return _join([str(tensor.path), str(tensor.offset), str(tensor.length)])
    if tensor.nbytes > _READ_LIMIT:
        return _join([str(id(tensor))])
    if tensor.dtype == ir.DataType.STRING:
        return _join([repr(tensor.numpy().tolist())])
    return hashlib.blake2b(tensor.tobytes(), digest_size=16).digest()


def _join(parts: Iterable[str | bytes]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        state.update(len(raw).to_bytes(4, "little"))
        state.update(raw)
    return state.digest()


class _GraphHash:
    """One walk over one graph; bodies share what is known about outer tensors."""

    def __init__(self, hasher: Hasher, *, floats: bool) -> None:
        self._hasher = hasher
        self._floats = floats
        self._values: dict[ir.Value, bytes] = {}

    def of(self, graph: ir.Graph) -> bytes:
        """Hash a graph or a body: its inputs by place, its nodes in any order."""
        for place, value in enumerate(graph.inputs):
            self._values[value] = _join(["input", value.name or "", str(place)])
        nodes = sorted(self._node(node) for node in graph)
        outputs = [
            part for value in graph.outputs for part in (value.name or "", self._value(value))
        ]
        return _join(["graph", *nodes, "outputs", *outputs, str(len(graph.initializers))])

    def _node(self, node: ir.Node) -> bytes:
        attributes = [
            part for key in sorted(node.attributes) for part in (key, self._attribute(node, key))
        ]
        inputs = [b"" if value is None else self._value(value) for value in node.inputs]
        own = _join([node.domain, node.op_type, *attributes, "inputs", *inputs])
        for place, value in enumerate(node.outputs):
            self._values[value] = _join([own, str(place)])
        return own

    def _value(self, value: ir.Value) -> bytes:
        known = self._values.get(value)
        if known is None:
            known = self._constant(value)
            self._values[value] = known
        return known

    def _constant(self, value: ir.Value) -> bytes:
        tensor = constant_tensor(value)
        if tensor is None:
            return _join(["unknown", value.name or ""])
        return self._tensor(tensor)

    def _tensor(self, tensor: ir.TensorProtocol) -> bytes:
        kind = [str(tensor.dtype), str(tensor.shape)]
        if tensor.dtype.is_floating_point() and not self._floats:
            return _join(["constant", *kind])
        return _join(["constant", *kind, self._hasher.tensor(tensor)])

    def _attribute(self, node: ir.Node, key: str) -> bytes:
        attribute = node.attributes[key]
        value: Any = attribute.value
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            return self.of(value)
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            return self._tensor(value)
        if attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            return _join([self.of(item) for item in value])
        return _join([repr(value), attribute.ref_attr_name or ""])
