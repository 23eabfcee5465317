"""Finds the next layers after a tensor: whether one is in float, or an output of the network comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["Ahead", "layers_ahead"]


@dataclass(frozen=True)
class Ahead:
    """What follows a tensor, up to the next layers.

    Attributes:
        float_layer: whether one of the next layers is kept in float.
        output: whether it reaches an output of the network with no layer between.
    """

    float_layer: bool = False
    output: bool = False


def layers_ahead(
    model: ir.Model, int8: Collection[str], in_float: Collection[str]
) -> dict[ir.Value, Ahead]:
    """Return what follows each tensor of the main graph.

    Args:
        model: the float network.
        int8: names of the layers in INT8.
        in_float: names of the layers that are kept in float.
    """
    found: dict[ir.Value, Ahead] = {}

    def ahead_of(value: ir.Value) -> Ahead:
        """Return what follows a tensor: its readers that are layers; else what follows their outputs."""
        float_layer, output = False, value.is_graph_output()
        for use in value.uses():
            name = use.node.name
            if name in int8:
                continue
            if name in in_float:
                float_layer = True
                continue
            for result in use.node.outputs:
                ahead = found.get(result)
                if ahead is not None:
                    float_layer |= ahead.float_layer
                    output |= ahead.output
        return Ahead(float_layer, output)

    for node in reversed(model.graph):
        for output in node.outputs:
            found[output] = ahead_of(output)
    for value in model.graph.inputs:
        found[value] = ahead_of(value)
    return found
