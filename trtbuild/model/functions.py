"""Inlines the functions that a network defines itself (ONNX local functions)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx.inliner

from trtbuild.errors import ModelError, first_line
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.opset import check_scans, keep_old_coordinates, raise_proto_opset
from trtbuild.model.traversal import proto_bodies, proto_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["check_size_written_out", "with_functions_of_its_opset", "with_functions_written_out"]

# Networks of a million nodes take hours in every tool; no known network has a tenth of that.
_MOST_NODES = 1_000_000


def with_functions_written_out(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return `proto` with its local functions inlined."""
    if not proto.functions:
        return proto
    return onnx.inliner.inline_local_functions(proto, convert_version=True)


def with_functions_of_its_opset(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, str]:
    """Return `proto` with all functions inlined if one of them imports another opset than the network.

    The operators of a function have the meaning of the function's own opset (FunctionProto's
    ``opset_import``). Network and functions are raised to the newest opset among them.

    Args:
        proto: as parsed; its weights may lie in other files.
        path: the file, for messages.

    Returns:
        The network, and a sentence without a full stop that says what was done; empty if nothing was.

    Raises:
        ModelError: ONNX's version converter cannot convert an operator.
    """
    own = _opset(proto.opset_import)
    others = {_opset(one.opset_import): one for one in proto.functions} if own else {}
    others = {opset: one for opset, one in others.items() if opset not in (0, own)}
    if not others:
        return proto, ""
    oldest, newest = min(others), max(own, *others)
    function = others[oldest]
    try:
        for one in proto.functions:
            opset = _opset(one.opset_import)
            inside = [inner for node in one.node for inner in _with_bodies(node)]
            check_scans(inside, opset, newest)
            keep_old_coordinates(inside, opset)
        if own < newest:
            proto = raise_proto_opset(proto, newest, path)
        # the converter needs the types of the tensors with which functions are called
        proto = with_functions_written_out(onnx.shape_inference.infer_shapes(proto))
    except Exception as error:
        raise ModelError(
            f"'{path}' has opset {own}, and its function '{function.name}' is for opset {oldest}; one "
            f"opset for both failed: {first_line(error).rstrip('.')}. Export the network with one opset."
        ) from error
    del proto.graph.value_info[:]  # later stages infer their own
    return proto, (
        f"its functions, such as '{function.name}' of opset {oldest}, were written out in opset {newest}"
    )


def _opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((entry.version for entry in imports if entry.domain in ONNX_DOMAINS), 0)


def _with_bodies(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [node, *(inner for body in proto_bodies(node) for inner in proto_nodes(body))]


def check_size_written_out(proto: onnx.ModelProto, path: Path) -> None:
    """Check that inlining functions that call each other does not make the network too large.

    Raises:
        ModelError: it would have more than `_MOST_NODES` nodes.
    """
    functions = {(f.domain, f.name): f for f in proto.functions}
    known: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        return sum(size_of(node, depth) for node in nodes)

    def size_of(node: onnx.NodeProto, depth: int) -> int:
        """Return how many nodes `node` becomes when it is inlined."""
        key = (node.domain, node.op_type)
        inside = sum(size(body.node, depth) for body in proto_bodies(node))
        if key not in functions or depth > len(functions):  # a cycle: the inliner reports it
            return 1 + inside
        if key not in known:
            known[key] = size(functions[key].node, depth + 1)
        return known[key] + inside

    count = size(proto.graph.node, 0) if functions else sum(1 for _ in proto_nodes(proto.graph))
    if count > _MOST_NODES:
        raise ModelError(
            f"'{path}' has functions that call each other: written out, it would have {count} nodes, and "
            f"{_MOST_NODES} are the most. Export it without functions."
        )
