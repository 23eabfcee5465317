"""Attention with both products in INT8: Q, K, V and the output of Softmax are read through Q/DQ.

A compiler that can fuse the two products and the Softmax between them into one INT8 kernel does so if all
four tensors are quantized; otherwise it runs two float products and a Softmax. The pairs are placed directly
before the products, so that Q, K and V of one projection have a scale each.

Source: NVIDIA Model Optimizer, which places these pairs for TensorRT up to 512 positions
(``modelopt.onnx.quantization.graph_utils.find_nodes_from_mha_to_exclude``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from trtbuild.target import Target

__all__ = [
    "AttentionBlock",
    "attention_blocks",
    "attention_reason",
    "why_attention_is_float",
]

_BETWEEN = frozenset({"Add", "Div", "Mul", "Where"})
"""Scaling and masks: a mask is added, or selects between a score and a large negative number."""


@dataclass(frozen=True)
class AttentionBlock:
    """softmax(scores) V, where the scores are Q K^T, scaled and masked.

    Attributes:
        scores: the product of Q and K.
        mixed: the product of the Softmax's output and V.
    """

    scores: ir.Node
    mixed: ir.Node


def attention_blocks(model: ir.Model) -> Iterator[AttentionBlock]:
    """Yield the attention of the main graph: MatMul, then any Mul, Div, Add and Where, Softmax, MatMul.

    No tensor in between has another reader or is an output of the network.
    """
    for node in model.graph:
        if not _is_product(node):
            continue
        value = _behind_scaling(node.outputs[0])
        softmax = _only_reader(value)
        if softmax is None or softmax.op_type != "Softmax" or not _is_over_last(softmax):
            continue
        mixed = _only_reader(softmax.outputs[0])
        if mixed is None or not _is_product(mixed) or mixed.inputs[0] is not softmax.outputs[0]:
            continue
        yield AttentionBlock(node, mixed)


def why_attention_is_float(block: AttentionBlock, target: Target) -> str | None:
    """Return why `target` has no INT8 kernel for an attention; None if it has one, as far as is known."""
    attention = target.attention
    assert attention is not None
    scores, query = block.scores.outputs[0].shape, block.scores.inputs[0]
    if scores is not None and len(scores) > 1 and scores.dims[-2] == 1 and not attention.one_query:
        return (
            f"target {target.name}: attention of one query is one kernel in float, and not in INT8"
        )
    lengths = [size for size in (scores.dims[-2:] if scores else ()) if isinstance(size, int)]
    if lengths and max(lengths) > attention.longest:
        return (
            f"target {target.name}: attention over {max(lengths)} positions is not a single INT8 kernel, "
            f"which ends at {attention.longest}"
        )
    head = query.shape.dims[-1] if query is not None and query.shape else None
    sizes = attention.head_sizes
    if sizes is not None and isinstance(head, int) and head not in sizes:
        known = ", ".join(map(str, sorted(sizes)))
        return (
            f"target {target.name}: attention with heads of {head} is not a single INT8 kernel, "
            f"only those of {known} are"
        )
    return None


def attention_reason(block: AttentionBlock, target: Target) -> str:
    """Return why both products of an attention read through Q/DQ on `target`."""
    assert target.attention is not None
    shape = block.scores.outputs[0].shape
    is_one = shape is not None and all(size == 1 for size in shape.dims[:-2])
    if is_one and not target.attention.one_head:
        return (
            f"target {target.name}: attention of one head and one sample is two INT8 products, and no "
            "single kernel"
        )
    return f"target {target.name}: attention is one INT8 kernel"


def _is_product(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and not any(is_constant(value) for value in node.inputs)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = [use for use in value.uses() if use.node.op_type != "Shape"]  # Shape reads no values
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = uses[0].node
    return reader if reader.graph is value.graph else None


def _behind_scaling(value: ir.Value) -> ir.Value:
    reader = _only_reader(value)
    while reader is not None and reader.op_type in _BETWEEN:
        value = reader.outputs[0]
        reader = _only_reader(value)
    return value


def _is_over_last(softmax: ir.Node) -> bool:
    shape = softmax.outputs[0].shape
    axis = softmax.attributes.get_int("axis", -1)
    return axis == -1 or (shape is not None and axis == len(shape) - 1)
