"""Attention masks with one row for all queries, which ONNX Runtime refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.traversal import proto_graphs
from trtbuild.wording import counted

if TYPE_CHECKING:
    import onnx

__all__ = ["expand_mask_rows"]


def expand_mask_rows(proto: onnx.ModelProto) -> str:
    """Give the masks of Attention a row for each query, in place.

    ONNX broadcasts a mask ``[samples, 1, 1, keys]``, which `torch.onnx` writes for a padding mask; ONNX
    Runtime 1.32 broadcasts samples and heads only, and fails when it runs.

    Returns:
        A sentence without a full stop; empty where no mask has a single row.
    """
    expanded = 0
    for graph in proto_graphs(proto.graph):
        for place, node in reversed(list(enumerate(graph.node))):
            if not _has_mask(node) or not _is_one_row(graph, node.input[3], node.input[0]):
                continue
            for made in reversed(_expansion(node)):
                graph.node.insert(place, made)
            graph.node[place + _NUM_MADE].input[3] = graph.node[place + _NUM_MADE - 1].output[0]
            expanded += 1
    if not expanded:
        return ""
    masks = counted(expanded, "mask")
    return f"{masks} of Attention had one row for all queries and got a row for each, as ONNX Runtime needs"


def _has_mask(node: onnx.NodeProto) -> bool:
    is_attention = node.op_type == "Attention" and node.domain in ONNX_DOMAINS
    return is_attention and len(node.input) > 3 and bool(node.input[3])


def _is_one_row(graph: onnx.GraphProto, mask: str, query: str) -> bool:
    """Whether a mask is known to have one row, and the queries are not known to be one."""
    rows, queries = (_last_but_one_dim(graph, name) for name in (mask, query))
    return rows == 1 and queries != 1


def _last_but_one_dim(graph: onnx.GraphProto, name: str) -> int | None:
    """The dim, 0 if it is dynamic; None if the tensor's dims are not known or too few."""
    for value in (*graph.value_info, *graph.input):
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            return int(dims[-2].dim_value) if len(dims) > 1 else None
    weight = next((one for one in graph.initializer if one.name == name), None)
    return int(weight.dims[-2]) if weight is not None and len(weight.dims) > 1 else None


_NUM_MADE = 4


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
