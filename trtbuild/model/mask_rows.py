"""Attention masks with one row for all queries, which ONNX Runtime refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.traversal import proto_bodies, proto_nodes
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["expand_mask_rows"]


def expand_mask_rows(proto: onnx.ModelProto) -> str:
    """Give the masks of Attention a row for each query, in place.

    ONNX broadcasts a mask ``[samples, 1, 1, keys]``, which `torch.onnx` writes for a padding mask; ONNX
    Runtime 1.32 broadcasts samples and heads only, and fails when it runs.

    Returns:
        A sentence without a full stop; empty where no mask is known to have a single row.
    """
    if not any(map(_has_mask, proto_nodes(proto.graph))):
        return ""
    expanded = _expand_in(proto.graph, {})
    if not expanded:
        return ""
    masks = counted(expanded, "mask")
    return f"{masks} of Attention had one row for all queries and got a row for each, as ONNX Runtime needs"


def _expand_in(graph: onnx.GraphProto, outer: Mapping[str, int]) -> int:
    """Expand the masks in a graph and its bodies; return their number.

    Args:
        graph: the graph.
        outer: the rows of the tensors of the enclosing graphs, which a body may read.
    """
    rows = {**outer, **_rows_of(graph)}
    expanded = 0
    for place, node in reversed(list(enumerate(graph.node))):
        expanded += sum(_expand_in(body, rows) for body in proto_bodies(node))
        if not _has_mask(node) or rows.get(node.input[3]) != 1 or rows.get(node.input[0]) == 1:
            continue
        made = _expansion(node)
        node.input[3] = made[-1].output[0]
        for one in reversed(made):
            graph.node.insert(place, one)
        expanded += 1
    return expanded


def _rows_of(graph: onnx.GraphProto) -> dict[str, int]:
    """Tensor -> its last but one dim, 0 if it is dynamic; without those whose dims are unknown or too few."""
    dims = {one.name: one.dims for one in graph.initializer}
    for value in (*graph.value_info, *graph.input):
        shape = value.type.tensor_type.shape
        dims[value.name] = [dim.dim_value for dim in shape.dim]
    return {name: int(found[-2]) for name, found in dims.items() if len(found) > 1}


def _has_mask(node: onnx.NodeProto) -> bool:
    is_attention = node.op_type == "Attention" and node.domain in ONNX_DOMAINS
    return is_attention and len(node.input) > 3 and bool(node.input[3])


def _expansion(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes that expand the mask of `node` to the number of queries, the last but one axis of Q."""
    stem = f"{node.output[0]}/mask"
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    return [
        helper.make_node("Shape", [node.input[0]], [f"{stem}/queries"], start=-2, end=-1),
        helper.make_node("Constant", [], [f"{stem}/one"], value=one),
        helper.make_node("Concat", [f"{stem}/queries", f"{stem}/one"], [f"{stem}/dims"], axis=0),
        helper.make_node("Expand", [node.input[3], f"{stem}/dims"], [f"{stem}/expanded"]),
    ]
