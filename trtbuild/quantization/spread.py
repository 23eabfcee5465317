"""Scales of tensors that have none, from neighbours that hold the same values.

Implicit INT8 wants a scale on every tensor, a calibration has one where Q/DQ would stand, and a cache of
another export has names that moved. Two rules fill the gaps exactly: what only moves values keeps their
scale, and clipping commutes with Relu, so the tensor in front of a Relu may be clipped where the one behind
it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant
from trtbuild.model.operators import moves_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir as ir

__all__ = ["Spread", "spread_scales"]

# All values of the input are in the output and none besides, so that a scale may also go backwards.
_KEEPING = frozenset(
    {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_RELU = "Relu"


@dataclass(frozen=True)
class Spread:
    """A scale that a tensor got from another one: its value, that tensor, and the operators between."""

    scale: np.float32
    source: str
    through: tuple[str, ...]


def spread_scales(model: ir.Model, scales: Mapping[str, np.float32]) -> dict[str, Spread]:
    """Find scales for tensors of the main graph that are not in `scales`.

    Args:
        model: the network.
        scales: tensor name -> scale, of some of its tensors; only positive finite ones.

    Returns:
        Tensor name -> scale and origin, for the further tensors that are reached.
    """
    found: dict[str, Spread] = {}
    changed = True
    while changed:  # forwards and backwards until nothing is reached any more
        changed = False
        for node in model.graph:
            source = node.inputs[0] if node.inputs else None
            target = node.outputs[0] if node.outputs else None
            if source is None or target is None:
                continue
            if _goes_forward(node):
                for output in node.outputs:
                    changed |= _hand_on(source, output, node.op_type, scales, found)
            if node.op_type in (*_KEEPING, _RELU) and len(source.uses()) == 1:
                changed |= _hand_on(target, source, node.op_type, scales, found)
    return found


def _goes_forward(node: ir.Node) -> bool:
    return moves_values(node) or node.op_type == "Dropout"


def _hand_on(
    giver: ir.Value,
    taker: ir.Value,
    op_type: str,
    scales: Mapping[str, np.float32],
    found: dict[str, Spread],
) -> bool:
    have, want = giver.name or "", taker.name or ""
    if want in scales or want in found or is_constant(taker):
        return False
    if have in scales:
        found[want] = Spread(scales[have], have, (op_type,))
    elif have in found:
        given = found[have]
        found[want] = Spread(given.scale, given.source, (*given.through, op_type))
    else:
        return False
    return True
