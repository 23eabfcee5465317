"""Recovers the float network behind a Q/DQ file whose channels were scaled before rounding.

A build scales channels so that they round better (`trtbuild.search.channels.scaling`): the network computes
the same, but its layers do not. Compared with the original network, a layer of such a file would be blamed
for a scale that its neighbour takes back. The factors are recovered from the weights: ``w' = a w b``, with a
factor per output channel and one per input channel, by alternating least squares. The recovered network has
to compute the same as the float network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute
from trtbuild.model.constants import array
from trtbuild.model.edits import add_initializer, remove_unread
from trtbuild.model.qdq import float_twins, weight_behind
from trtbuild.model.traversal import nodes_by_name
from trtbuild.search.groups import with_weights_only

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.search.evaluate import Evaluator

__all__ = ["float_form"]

# Rounding to 8 bits leaves a higher SQNR; a weight below this was changed before it was rounded.
_ROUNDED_DB = 20.0
_ITERATIONS = 30
# Least SQNR of the outputs of a recovered network: errors of the factors of a few hundred layers add up.
_SAME_DB = 25.0


def float_form(quantized: ir.Model, reference: ir.Model, evaluate: Evaluator) -> ir.Model:
    """Return the float network that `quantized` rounds.

    This is `reference`, unless a weight is far from the one in `reference` but near it after scaling its
    channels. Then it is `quantized` without Q/DQ, with the scaled weights of `reference`, if that gives the
    same outputs. A weight that is near neither stays rounded.

    Args:
        quantized: a Q/DQ network of any tool.
        reference: the float network that it was made from.
        evaluate: compares a network with `reference`.
    """
    found = _scaled_network(quantized, reference)
    if found is None:
        return reference
    sqnr = evaluate(found).worst_sqnr_db
    return found if sqnr is None or sqnr >= _SAME_DB else reference


def _scaled_network(quantized: ir.Model, reference: ir.Model) -> ir.Model | None:
    """`quantized` without Q/DQ, with the scaled weights of `reference`; None if no weight was scaled."""
    nodes = nodes_by_name(quantized.graph)
    rounded, floats, is_scaled = {}, {}, False
    for name, twin in float_twins(quantized, reference).items():
        node = nodes[name]
        weight = weight_behind(node.inputs[1]) if len(node.inputs) > 1 else None
        original = array(twin.inputs[1]) if weight is not None else None
        if weight is None or original is None or weight.shape != original.shape:
            continue
        rounded[name] = weight
        near = _decibels(original, weight) >= _ROUNDED_DB
        scaled = original if near else _scaled(original, weight, attribute(node, "group", 1))
        if near or _decibels(scaled, weight) >= _ROUNDED_DB:
            floats[name] = scaled
        is_scaled = is_scaled or (not near and name in floats)
    return _with_weights(quantized, {**rounded, **floats}) if is_scaled else None


def _decibels(signal: np.ndarray, other: np.ndarray) -> float:
    noise = float(np.square(signal - other, dtype=np.float64).sum())
    power = float(np.square(signal, dtype=np.float64).sum())
    return 10.0 * float(np.log10(max(power, 1e-300) / max(noise, 1e-300)))


def _scaled(original: np.ndarray, rounded: np.ndarray, groups: int) -> np.ndarray:
    """`original`, scaled along its first two axes to be as close as possible to `rounded`.

    In grouped convolutions each group has its own factors along the second axis.
    """
    if original.ndim < 2:
        return original
    shape = (groups, original.shape[0] // groups, original.shape[1], -1)
    w, v = (one.astype(np.float64).reshape(shape) for one in (original, rounded))
    b = np.sqrt(_ratio((v * v).sum((1, 3), keepdims=True), (w * w).sum((1, 3), keepdims=True)))
    a = np.ones((groups, shape[1], 1, 1))
    for _ in range(_ITERATIONS):
        a = _ratio(
            (v * w * b).sum((2, 3), keepdims=True), np.square(w * b).sum((2, 3), keepdims=True)
        )
        b = _ratio(
            (v * w * a).sum((1, 3), keepdims=True), np.square(w * a).sum((1, 3), keepdims=True)
        )
    found: np.ndarray = (a * w * b).reshape(original.shape).astype(original.dtype)
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.divide(above, below, out=np.ones_like(above), where=below > 0)
    return found


def _with_weights(quantized: ir.Model, weights: dict[str, np.ndarray]) -> ir.Model:
    """`quantized` without Q/DQ, with these weights of its layers."""
    model = with_weights_only(quantized)
    nodes = nodes_by_name(model.graph)
    for name, weight in weights.items():
        value = add_initializer(model.graph, f"{name}__weight", weight)
        nodes[name].replace_input_with(1, value)
    remove_unread(model)
    return model
