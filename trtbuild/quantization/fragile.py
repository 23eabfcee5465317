"""Operators whose input must not be rounded to eight bits.

Softmax turns differences into ratios, and a normalisation divides by a spread that a few large channels
dominate. With one scale for all channels, both turn a rounding step into large errors of small channels. Both
compute in float, so rounding saves no kernel either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.operators import moves_values

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fragile_reader"]

_FRAGILE = frozenset(
    {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "LpNormalization"}
    | {"RMSNormalization", "SimplifiedLayerNormalization", "Softmax"}
)  # fmt: skip


def fragile_reader(value: ir.Value) -> ir.Node | None:
    """Return a Softmax or normalisation that reads `value`, directly or after data movement; else None."""
    for use in value.uses():
        if use.idx != 0:
            continue
        if use.node.op_type in _FRAGILE:
            return use.node
        found = None
        if moves_values(use.node):
            found = next(filter(None, map(fragile_reader, use.node.outputs)), None)
        if found is not None:
            return found
    return None
