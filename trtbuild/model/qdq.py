"""Reads Q/DQ networks: which inputs are quantized, from which tensors, with which scales and zero points.

Uses names and operators of ONNX only, so it also reads networks that other tools quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array
from trtbuild.model.operators import CLIPPING, moves_values
from trtbuild.model.traversal import nodes_by_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = [
    "ActivationPair",
    "activation_pairs",
    "along_axis",
    "behind_activation",
    "dequantized",
    "float_twins",
    "is_qdq",
    "pair_behind",
    "quantized_nodes",
    "weight_behind",
]

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class ActivationPair:
    """A Q/DQ pair on a computed tensor, with per-tensor scale and zero point.

    Attributes:
        source: the float tensor before Q.
        quantize, dequantize: the two nodes.
        scale: step size.
        low, high: the smallest and largest value that is not clipped, ``(limit - zero) * scale``.
    """

    source: ir.Value
    quantize: ir.Node
    dequantize: ir.Node
    scale: float
    low: float
    high: float


def is_qdq(node: ir.Node) -> bool:
    """Say whether `node` is a QuantizeLinear or DequantizeLinear."""
    return node.op_type in (_QUANTIZE, _DEQUANTIZE)


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def pair_behind(value: ir.Value | None) -> ActivationPair | None:
    """Return the per-tensor Q/DQ pair whose output is `value`, or None."""
    dequantize = _producer(value, _DEQUANTIZE)
    quantize = _producer(dequantize.inputs[0], _QUANTIZE) if dequantize is not None else None
    if dequantize is None or quantize is None or quantize.inputs[0] is None:
        return None
    scale, zero, dtype = _numbers(quantize)
    if scale is None or scale.size != 1:
        return None
    limits = np.iinfo(dtype)
    step, origin = float(scale.reshape(-1)[0]), float(zero.reshape(-1)[0])
    low, high = ((limit - origin) * step for limit in (limits.min, limits.max))
    return ActivationPair(quantize.inputs[0], quantize, dequantize, step, low, high)


def dequantized(value: ir.Value | None) -> NDArray[Any] | None:
    """Return a constant, or the result of a DequantizeLinear of constants in the type of its scale.

    The product is rounded once: it is computed in float64.

    Returns:
        Its elements; None where they, the scale or the zero point are computed, or the scale is per block.
    """
    node = _producer(value, _DEQUANTIZE)
    if node is None:
        return array(value)
    content, scale = array(node.inputs[0]), array(node.inputs[1])
    given = input_at(node, 2)
    zero = array(given)
    unknown = content is None or scale is None or (given is not None and zero is None)
    if unknown or attribute(node, "block_size", 0):
        return None
    assert content is not None and scale is not None  # noqa: PT018
    axis = normal_axis(int(attribute(node, "axis", 1)), content.ndim)
    steps = content.astype(np.float64)
    if zero is not None:
        steps -= along_axis(zero, axis, content.ndim).astype(np.float64)
    result = steps * along_axis(scale, axis, content.ndim).astype(np.float64)
    return result.astype(scale.dtype)


def along_axis(vector: NDArray[Any], axis: int, ndim: int) -> NDArray[Any]:
    """Reshape a scale or zero point, of one value or one per slice of `axis`, so that it broadcasts.

    Args:
        vector: ``[]``, ``[1]`` or ``[size of the axis]``.
        axis: of the quantized tensor, counted from the front.
        ndim: the number of dims of that tensor.
    """
    if vector.size == 1:
        return vector.reshape((1,) * ndim)
    return vector.reshape([-1 if place == axis else 1 for place in range(ndim)])


def activation_pairs(model: ir.Model) -> dict[str, ActivationPair]:
    """Return every Q/DQ pair on an activation, by the name of the float tensor before it."""
    found = {}
    for node in model.graph:
        if node.op_type == _DEQUANTIZE:
            pair = pair_behind(node.outputs[0])
            if pair is not None:
                found[pair.source.name or ""] = pair
    return found


def weight_behind(value: ir.Value | None) -> np.ndarray | None:
    """Return the dequantized weight if a DequantizeLinear makes `value`, else None."""
    return None if _producer(value, _DEQUANTIZE) is None else dequantized(value)


def _numbers(node: ir.Node) -> tuple[np.ndarray | None, np.ndarray, np.dtype]:
    """Scale, zero point and integer type of a Q or DQ whose scale is constant."""
    zero = array(input_at(node, 2))
    numbers = np.zeros((), np.uint8) if zero is None else zero
    return array(node.inputs[1]), numbers, numbers.dtype


def quantized_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Return the nodes that compute on a dequantized tensor; data movement and Q/DQ are left out."""
    for node in model.graph:
        if is_qdq(node) or moves_values(node):
            continue
        if any(_producer(value, _DEQUANTIZE) is not None for value in node.inputs):
            yield node


def float_twins(quantized: ir.Model, reference: ir.Model) -> Mapping[str, ir.Node]:
    """Return the float node of each node of `quantized`: the one with the same name and operator.

    A node that has no match by name is matched by the name of its first output.
    """
    by_name = nodes_by_name(reference.graph)
    by_output = {node.outputs[0].name: node for node in reference.graph if node.outputs}
    twins = {}
    for node in quantized.graph:
        twin = by_name.get(node.name or "") or by_output.get(node.outputs[0].name)
        if twin is not None and twin.op_type == node.op_type:
            twins[node.name or ""] = twin
    return twins


def behind_activation(value: ir.Value) -> ir.Value:
    """Return the output of the Relu or Clip that is the only reader of `value`, else `value`."""
    uses = list(value.uses())
    if len(uses) == 1 and not value.is_graph_output() and uses[0].node.op_type in CLIPPING:
        return uses[0].node.outputs[0]
    return value
