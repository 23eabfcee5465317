"""Derives ranges of tensors that were not observed from the ranges of neighbouring tensors.

The observed tensors are those that one choice of groups needs. Another choice, made later by a search or
with the ranges of a file, puts Q/DQ elsewhere. Beside the exact rules of `scale_propagation`, these rules
bound the values, and clip only values that the neighbours clip:

    output of a Concat                     the union of the parts
    part of a Concat                       the range of the output
    output of an averaging pool or Relu    the range of the input
    one branch of an Add                   the output of the Add minus the other branch
    output of an Add                       the sum of its branches
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import is_constant
from trtbuild.model.operators import AVERAGING
from trtbuild.model.qdq import behind_activation
from trtbuild.quantization.scale_propagation import propagate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from calibrators import TensorRange

__all__ = ["with_neighbours"]


def with_neighbours(model: ir.Model, ranges: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
    """Return `ranges` and all ranges that follow from them, by tensor name."""
    known = dict(ranges)
    grew = True
    while grew:
        before = len(known)
        known.update({name: one.value for name, one in propagate(model, known).items()})
        for node in model.graph:
            for value, bound in _bounds(node, known):
                known.setdefault(value.name or "", bound)
        grew = len(known) > before
    return known


def _bounds(
    node: ir.Node, known: Mapping[str, TensorRange]
) -> Iterator[tuple[ir.Value, TensorRange]]:
    inputs = [None if value is None else known.get(value.name or "") for value in node.inputs]
    if node.op_type == "Concat":
        parts = [part for part in inputs if part is not None]
        if len(parts) == len(inputs):
            yield node.outputs[0], _union(parts)
        joined = known.get(node.outputs[0].name or "")
        for value in node.inputs:
            if joined is not None and value is not None and not is_constant(value):
                yield value, joined
    elif node.op_type in AVERAGING and inputs[0] is not None:
        yield node.outputs[0], inputs[0]
    elif node.op_type == "Relu" and inputs[0] is not None:
        yield node.outputs[0], replace(inputs[0], minimum=0.0, maximum=max(inputs[0].maximum, 0.0))
    elif node.op_type == "Add" and not any(is_constant(value) for value in node.inputs):
        yield from _around_add(node, inputs, known)


def _around_add(
    node: ir.Node, inputs: list[TensorRange | None], known: Mapping[str, TensorRange]
) -> Iterator[tuple[ir.Value, TensorRange]]:
    summed, activated = node.outputs[0], behind_activation(node.outputs[0])
    first, second = inputs
    if first is not None and second is not None:
        yield (
            node.outputs[0],
            _between(first, _low(first) + _low(second), _high(first) + _high(second)),
        )
    for value, own, other in zip(node.inputs, inputs, (second, first)):
        if own is not None or value is None or other is None:
            continue
        # if only the Add reads the branch, values that the activation after it clips away need no range
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        total = known.get((activated if alone else summed).name or "")
        if total is not None:
            yield value, _between(total, _low(total) - _high(other), _high(total) - _low(other))


def _low(given: TensorRange) -> float:
    return min(0.0, max(given.minimum, -given.amax))


def _high(given: TensorRange) -> float:
    return max(0.0, min(given.maximum, given.amax))


def _union(parts: list[TensorRange]) -> TensorRange:
    widest = max(parts, key=lambda part: part.amax)
    low, high = min(part.minimum for part in parts), max(part.maximum for part in parts)
    return replace(widest, minimum=low, maximum=high)


def _between(like: TensorRange, low: float, high: float) -> TensorRange:
    amax = float(np.float32(max(-low, high)))
    return replace(like, amax=amax, observed_amax=amax, minimum=low, maximum=high)
