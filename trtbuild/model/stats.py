"""The size of a graph: nodes by operator, parameters, multiply-accumulates, bytes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute
from trtbuild.model.constants import constant_tensor
from trtbuild.model.shapes import dims, static_dims
from trtbuild.model.traversal import all_graphs, all_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from trtbuild.model.shapes import Dim

__all__ = ["GraphStats", "measure", "node_macs"]


@dataclass(frozen=True)
class GraphStats:
    """The size of a graph, including bodies of If, Loop and Scan (each counted once).

    Attributes:
        nodes: operator -> number of nodes; ``domain::operator`` outside the ONNX domain.
        parameters: elements of all constants.
        parameter_bytes: bytes of all constants.
        macs: multiply-accumulates of convolutions, matrix products and recurrent layers, with symbolic
            sizes such as the batch counted as 1; layers of unknown size are left out.
    """

    nodes: Mapping[str, int]
    parameters: int
    parameter_bytes: int
    macs: int

    @property
    def node_count(self) -> int:
        """All nodes but Constant, which is a weight and does no work."""
        return sum(count for op, count in self.nodes.items() if op != "Constant")


def measure(model: ir.Model) -> GraphStats:
    """Measure `model`. `macs` is complete only if dims have been inferred."""
    nodes: Counter[str] = Counter()
    macs = 0
    tensors = [
        value.const_value
        for graph in all_graphs(model.graph)
        for value in graph.initializers.values()
    ]
    for node in all_nodes(model.graph):
        nodes[f"{node.domain}::{node.op_type}" if node.domain else node.op_type] += 1
        macs += node_macs(node)
        if node.op_type == "Constant" and node.domain == "":
            tensors.append(constant_tensor(node.outputs[0]))
    held = [tensor for tensor in tensors if tensor is not None]
    return GraphStats(
        nodes=dict(sorted(nodes.items())),
        parameters=sum(tensor.size for tensor in held),
        parameter_bytes=sum(tensor.nbytes for tensor in held),
        macs=macs,
    )


def node_macs(node: ir.Node) -> int:
    """Return the multiply-accumulates of a node: output elements times the length of the sum in each.

    For recurrent layers, samples times time steps times the weights of input and state.
    """
    if node.domain != "":
        return 0
    match node.op_type:
        case "Conv":
            weight = static_dims(node.inputs[1])
            return _elements(node.outputs[0]) * math.prod(weight[1:]) if weight else 0
        case "ConvTranspose":
            weight = static_dims(node.inputs[1])
            return _elements(node.inputs[0]) * math.prod(weight[1:]) if weight else 0
        case "MatMul" | "Gemm":
            left = dims(node.inputs[0]) or (0,)
            return _elements(node.outputs[0]) * _at_one(
                left[0 if attribute(node, "transA", 0) else -1]
            )
        case "LSTM" | "GRU" | "RNN":
            steps = (dims(node.inputs[0]) or (0,))[:2]
            return math.prod(map(_at_one, steps)) * sum(map(_elements, node.inputs[1:3]))
        case _:
            return 0


def _elements(value: ir.Value | None) -> int:
    known = dims(value)
    return 0 if known is None else math.prod(map(_at_one, known))


def _at_one(size: Dim) -> int:
    return size if isinstance(size, int) else 1
