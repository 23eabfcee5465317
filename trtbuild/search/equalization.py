"""Cross-layer equalization: channels of one activation brought to one range, at no cost at run time.

Between two layers with weights, a positive factor per channel can be moved from one to the other:

    A: y = f(W x + b)          becomes   f(W/s x + b/s) = y / s
    B: z = V y                 becomes   (V s) (y / s)  = z

for every f with f(y / s) = f(y) / s: ReLU, LeakyReLU, max and average pooling. With
``s_c = (a_c / max a)^strength`` and a_c the largest magnitude of channel c, all channels of y / s use
the one INT8 scale alike. The weights of A have a scale per channel, which absorbs s exactly; so have
those of B where B is depthwise, which is where it matters most.

ReLU6 (Clip from 0) is not homogeneous. It is left as it is, and s_c = a_c / upper limit: a channel
that never came near the limit is scaled up to it, and what clips is what lies beyond everything seen.

Source: Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization
and Bias Correction", ICCV 2019; here the ranges are those of the activations, since weights have
scales of their own per channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import constant_of
from trtbuild.model.constants import is_constant
from trtbuild.model.edits import set_constant
from trtbuild.model.traversal import flattens_one_pixel, nodes_by_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = ["ChannelPair", "Skipped", "equalize", "find_pairs"]

# Channels this much smaller than the largest are treated as if they were this large: their values
# are noise, and a larger factor would only amplify it.
_SMALLEST_SHARE = 1e-3

_HOMOGENEOUS = frozenset(
    {"AveragePool", "Dropout", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Relu"}
)


@dataclass(frozen=True)
class ChannelPair:
    """A layer and those that alone read it.

    Attributes:
        first: name of the layer whose output channels are scaled.
        readers: names of the layers whose input channels take the factor back.
        tensor: the activation in between, as the readers read it.
        measured: the tensor whose channel ranges count: behind a Clip, else `tensor`.
        limit: upper limit of a Clip in between; None without one.
    """

    first: str
    readers: tuple[str, ...]
    tensor: str
    measured: str
    limit: float | None


@dataclass(frozen=True)
class Skipped:
    """A layer that cannot be equalized with its readers, and why."""

    node: str
    reason: str


def find_pairs(model: ir.Model) -> tuple[tuple[ChannelPair, ...], tuple[Skipped, ...]]:
    """Find the layers of the main graph that can be equalized, and say why the others cannot."""
    pairs, skipped = [], []
    for node in model.graph:
        if not _has_channel_weights(node):
            continue
        found = _follow(node)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            pairs.append(found)
    return tuple(pairs), tuple(skipped)


def _has_channel_weights(node: ir.Node) -> bool:
    if node.op_type == "Conv":
        constants = list(node.inputs[1:])
    elif node.op_type == "Gemm":
        if (
            node.attributes.get_float("alpha", 1.0) != 1.0
            or node.attributes.get_int("transA", 0) != 0
        ):
            return False
        constants = list(node.inputs[1:])
    else:
        return False
    return all(value is None or is_constant(value) for value in constants)


def _follow(node: ir.Node) -> ChannelPair | Skipped:
    """Go from a layer through homogeneous operators to the layers that read it."""
    value, measured, limit = node.outputs[0], None, None
    name = node.name or ""
    while True:
        if value.is_graph_output():
            return Skipped(name, "its output is an output of the network")
        users = [use.node for use in value.uses()]
        if users and all(_takes_channels(user, value) for user in users):
            readers = tuple(dict.fromkeys(user.name or "" for user in users))
            tensor = value.name or ""
            return ChannelPair(name, readers, tensor, measured or tensor, limit)
        if len(users) != 1:
            kinds = sorted({user.op_type for user in users})
            return Skipped(name, f"it is read by {', '.join(kinds) or 'nothing'}")
        user = users[0]
        if user.op_type == "Clip" and limit is None:
            limit = _upper_limit(user)
            if limit is None:
                return Skipped(name, f"the limits of '{user.name}' are not 0 and a constant")
            measured = user.outputs[0].name
        elif not (user.op_type in _HOMOGENEOUS or flattens_one_pixel(user)):
            return Skipped(name, f"{user.op_type} '{user.name}' does not commute with scaling")
        value = user.outputs[0]


def _takes_channels(user: ir.Node, value: ir.Value) -> bool:
    """Whether `value` is the data input of a layer whose input channels can be scaled."""
    return _has_channel_weights(user) and user.inputs[0] is value and value not in user.inputs[1:]


def _upper_limit(clip: ir.Node) -> float | None:
    low, high = constant_of(clip, 1), constant_of(clip, 2)
    if low is None or high is None or float(low) != 0.0:
        return None
    return float(high) if 0.0 < float(high) < math.inf else None


def equalize(
    model: ir.Model,
    amax: Mapping[str, np.ndarray],
    strength: float = 1.0,
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return a copy of `model` with the channels of its pairs equalized, and the layers changed.

    The function computed stays the same, to rounding, for all inputs whose activations stay within
    `amax` where there is a Clip, and for all inputs elsewhere.

    Args:
        model: the float network.
        amax: `ChannelPair.measured` -> largest magnitude of each channel, float ``[channels]``, on
            calibration data.
        strength: 1 makes all channels alike; 0.5 leaves half of the difference, in logarithms, which
            is kinder to the weights of B.
    """
    model = model.clone()
    nodes = nodes_by_name(model.graph)
    changed = []
    for pair in find_pairs(model)[0]:
        if pair.measured not in amax:
            continue
        factors = _factors(amax[pair.measured], strength, pair.limit)
        if np.allclose(factors, 1.0):
            continue
        _scale_outputs(model, nodes[pair.first], 1.0 / factors)
        for reader in pair.readers:
            _scale_inputs(model, nodes[reader], factors)
        changed.append(pair.first)
    return model, tuple(changed)


def _factors(amax: np.ndarray, strength: float, limit: float | None) -> np.ndarray:
    largest = float(amax.max()) if limit is None else limit
    if largest <= 0.0:
        return np.ones_like(amax, np.float64)
    share = np.clip(amax.astype(np.float64) / largest, _SMALLEST_SHARE, 1.0)
    factors: np.ndarray = np.where(amax > 0.0, share, 1.0) ** strength
    return factors


def _scale_outputs(model: ir.Model, node: ir.Node, factors: np.ndarray) -> None:
    weight, bias = constant_of(node, 1), constant_of(node, 2)
    assert weight is not None
    by_row = node.op_type == "Conv" or node.attributes.get_int("transB", 0) != 0
    shape = [-1 if i == (0 if by_row else 1) else 1 for i in range(weight.ndim)]
    set_constant(model, node, 1, weight * factors.reshape(shape), "equalized")
    if bias is not None:
        set_constant(model, node, 2, bias * factors, "equalized")


def _scale_inputs(model: ir.Model, node: ir.Node, factors: np.ndarray) -> None:
    weight = constant_of(node, 1)
    assert weight is not None
    if node.op_type == "Gemm":
        by_row = node.attributes.get_int("transB", 0) != 0
        along = factors[None, :] if by_row else factors[:, None]
        set_constant(model, node, 1, weight * along, "equalized")
        return
    # weight [out, in / groups, ...]: output channel o reads input channels of its own group
    groups = node.attributes.get_int("group", 1)
    outputs, inputs = weight.shape[:2]
    per_output = np.repeat(factors.reshape(groups, inputs), outputs // groups, axis=0)
    shape = (outputs, inputs, *[1] * (weight.ndim - 2))
    set_constant(model, node, 1, weight * per_output.reshape(shape), "equalized")
