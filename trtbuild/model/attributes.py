"""Reading operators whose form changed between opsets: axes, bounds, flags."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.constants import array, integers, single_value
from trtbuild.model.operators import RANDOM

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = [
    "attribute",
    "axes",
    "constant_of",
    "dropout_is_off",
    "input_at",
    "is_inference_batch_norm",
    "is_random",
    "normal_axis",
    "permutation",
]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return an attribute as a Python value, or `default` where the node does not have it."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.value


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Return an operand; None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def constant_of(node: ir.Node, index: int) -> NDArray[np.float64] | None:
    """Return a constant operand as float64; None where it is left out or computed."""
    content = array(input_at(node, index))
    return None if content is None else content.astype(np.float64)


def axes(node: ir.Node, *, index: int = 1) -> tuple[int, ...] | None:
    """Return the constant axes of Squeeze, Unsqueeze or a reduction, as attribute or operand.

    Returns:
        The axes as written (possibly negative, empty where none are given); None where they are not
        constant.
    """
    written = attribute(node, "axes")
    if written is not None:
        return tuple(written)
    operand = input_at(node, index)
    return () if operand is None else integers(operand)


def normal_axis(axis: int, rank: int) -> int:
    """Count an axis from the front."""
    return axis + rank if axis < 0 else axis


def permutation(node: ir.Node, rank: int | None) -> tuple[int, ...] | None:
    """Return the permutation of a Transpose (default: reversed dims); None if the rank is unknown."""
    perm = attribute(node, "perm")
    if perm is not None:
        return tuple(perm)
    return None if rank is None else tuple(reversed(range(rank)))


def is_inference_batch_norm(node: ir.Node) -> bool:
    """Return whether a BatchNormalization works with its stored statistics.

    Before opset 14 there is no ``training_mode``: more than one output means training.
    """
    if attribute(node, "training_mode", 0) or not attribute(node, "spatial", 1):
        return False
    return all(not out.name for out in node.outputs[1:])


def dropout_is_off(node: ir.Node) -> bool:
    """Return whether a Dropout passes its input through."""
    operand = input_at(node, 2)
    if operand is None:
        return True
    content = array(operand)
    return content is not None and not bool(single_value(operand))


def is_random(node: ir.Node) -> bool:
    """Return whether `node` gives, or may give, other results in each run."""
    if node.op_type == "Dropout":
        return not dropout_is_off(node)
    return node.domain == "" and node.op_type in RANDOM


def pad_widths(node: ir.Node) -> tuple[int, ...] | None:
    """Return the constant widths of a Pad as written: all starts, then all ends; None if not constant."""
    written = attribute(node, "pads", attribute(node, "paddings"))
    return tuple(written) if written is not None else integers(input_at(node, 1))


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Return the constant bounds of a Clip, infinite where one is missing; None if not constant or NaN."""
    low, high = attribute(node, "min"), attribute(node, "max")
    bounds = [-math.inf if low is None else low, math.inf if high is None else high]
    for place in (0, 1):
        operand = input_at(node, place + 1)
        if operand is not None:
            value = single_value(operand)
            if value is None or math.isnan(float(value)):
                return None
            bounds[place] = float(value)
    return bounds[0], bounds[1]
