"""Attention masks before Softmax: masked sums stay in float.

Attention masks positions by adding minus infinity, or a number like -1e9, to their scores. A scale that
covers -1e9 rounds all other scores to zero, and infinity has no scale at all. Softmax only needs masked
scores far below the others. So tensors between a mask and a Softmax are never rounded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.model.constants import array, is_constant
from trtbuild.model.operators import ONNX_DOMAINS, moves_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx_ir as ir

__all__ = ["MASKING", "masked_sums", "reaches_minus_infinity"]

# Exporters mask with -inf, the lowest float32 or float16 (-65504), -1e9, -1e4, or -1e3. Scores before a
# Softmax are of the order of ten, and beside these exp(-1000) is 0 in float32.
MASKING = -1000.0

_SOFTMAX = frozenset({"LogSoftmax", "Softmax"})
_ELEMENTWISE = frozenset(
    {"Add", "Cast", "Clip", "Concat", "Div", "Max", "Min", "Mul", "Neg", "Sub"}
)
# Trilu keeps a triangle of the matrix that ConstantOfShape fills.
_MAKING = frozenset({"ConstantOfShape", "Trilu", "Where"})
_REASON = (
    "its result goes to Softmax and one side may be a mask, which leaves no scale for the other"
)


def masked_sums(model: ir.Model) -> dict[str, str]:
    """Return name -> reason for every node between a possible mask and a Softmax.

    A tensor may be a mask if it comes from a Where, from a constant (also of ConstantOfShape) with values at
    or below `MASKING`, or from an input of the network, through data movement and element-wise operators
    only. The output of a layer with weights is never one.
    """
    before = _in_front_of_softmax(model)
    masks: set[ir.Value] = {value for value in model.graph.inputs if not is_constant(value)}
    found = {}
    for node in model.graph:
        if not _passes_on(node):
            continue
        if (
            node.op_type == "Where"
            or _fills(node)
            or any(v in masks or _hides(v) for v in _given(node))
        ):
            masks.update(node.outputs)
            if node in before and node.name:
                found[node.name] = _REASON
    return found


def reaches_minus_infinity(model: ir.Model) -> frozenset[str]:
    """Return the tensors between a constant with minus infinity and the Softmax that reads it."""
    before = _in_front_of_softmax(model)
    reached: set[ir.Value] = set()
    for node in model.graph:
        infinite = any(v in reached or _hides(v, -math.inf) for v in _given(node))
        if node in before and (infinite or _fills(node, -math.inf)):
            reached.update(node.outputs)
    return frozenset(value.name for value in reached if value.name)


def _in_front_of_softmax(model: ir.Model) -> set[ir.Node]:
    found: set[ir.Node] = set()
    for node in reversed(model.graph):
        readers = [use.node for output in node.outputs for use in output.uses()]
        if _passes_on(node) and any(r.op_type in _SOFTMAX or r in found for r in readers):
            found.add(node)
    return found


def _passes_on(node: ir.Node) -> bool:
    if node.domain not in ONNX_DOMAINS:
        return False
    return node.op_type in _ELEMENTWISE | _MAKING or moves_values(node)


def _given(node: ir.Node) -> Iterator[ir.Value]:
    return (value for value in node.inputs if value is not None)


def _fills(node: ir.Node, limit: float = MASKING) -> bool:
    """Whether a node is a ConstantOfShape with a masking value."""
    value = node.attributes.get("value") if node.op_type == "ConstantOfShape" else None
    return value is not None and _is_hiding(value.as_tensor().numpy(), limit)


def _hides(value: ir.Value, limit: float = MASKING) -> bool:
    return _is_hiding(array(value) if is_constant(value) else None, limit)


def _is_hiding(content: np.ndarray | None, limit: float) -> bool:
    if content is None or content.dtype.kind != "f" or not content.size:
        return False
    return bool(content.min() <= limit)
