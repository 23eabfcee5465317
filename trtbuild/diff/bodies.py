"""Describes nodes with bodies (If, Loop, Scan): what the graphs inside them read and compute."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from trtbuild.model.constants import constant_tensor, tensor_bytes
from trtbuild.model.traversal import all_graphs, bodies, has_bodies
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

__all__ = ["described_bodies", "described_tensor", "read_by"]


def read_by(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """Return a node's inputs, then the outer values that its bodies read, each once."""
    return (*node.inputs, *_captured(node)) if has_bodies(node) else tuple(node.inputs)


def described_bodies(
    node: ir.Node, attributes_of: Callable[[ir.Node], Iterator[str]]
) -> Iterator[str]:
    """Describe a node's bodies without names: operators, attributes, constants, and which node reads what.

    Args:
        node: any node; one without bodies has no description.
        attributes_of: describes the attributes of a node that are not graphs.
    """
    keys = {value: f"outside {place}" for place, value in enumerate(_captured(node))}
    for body in bodies(node):
        yield from _described(body, keys, attributes_of)


def described_tensor(tensor: ir.TensorProtocol) -> str:
    """Return what identifies a constant: its type, its dims, and a digest of its content."""
    digest = hashlib.blake2b(tensor_bytes(tensor), digest_size=16)
    return f"{tensor.dtype}{tensor.shape}{digest.hexdigest()}"


def _captured(node: ir.Node) -> tuple[ir.Value, ...]:
    graphs = [graph for body in bodies(node) for graph in all_graphs(body)]
    inside = {value for graph in graphs for value in _made_in(graph)}
    read = (value for graph in graphs for value in _used_in(graph))
    return tuple(dict.fromkeys(v for v in read if v is not None and v not in inside))


def _made_in(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _used_in(graph: ir.Graph) -> Iterator[ir.Value | None]:
    for node in graph:
        yield from node.inputs
    yield from graph.outputs


def _described(
    graph: ir.Graph,
    keys: dict[ir.Value, str],
    attributes_of: Callable[[ir.Node], Iterator[str]],
) -> Iterator[str]:
    yield f"body of {counted(len(graph.inputs), 'input')}"
    for value in graph.inputs:
        keys[value] = f"inside {len(keys)}"
    for value in graph.initializers.values():
        keys[value] = f"inside {len(keys)}"
        tensor = constant_tensor(value)
        yield "" if tensor is None else described_tensor(tensor)
    for node in graph:
        yield f"{node.domain} {node.op_type}"
        yield from attributes_of(node)
        yield from (keys.get(value, "") if value is not None else "" for value in node.inputs)
        for body in bodies(node):
            yield from _described(body, keys, attributes_of)
        for value in node.outputs:
            keys[value] = f"inside {len(keys)}"
    yield from (keys.get(value, "") for value in graph.outputs)
