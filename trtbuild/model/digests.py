"""Digests that say which network a calibration or an engine belongs to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["graph_digest", "weights_digest"]


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
