"""What lies ahead of a tensor: whether its values reach a layer in float, or leave the network before one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx_ir as ir

__all__ = ["Ahead", "layers_ahead"]


@dataclass(frozen=True)
class Ahead:
    """What lies ahead of a tensor, up to the next layers.

    Attributes:
        float_layer: a layer that is kept in float.
        output: an output of the network, with no layer between.
    """

    float_layer: bool = False
    output: bool = False


def layers_ahead(
    model: ir.Model, int8: Collection[str], in_float: Collection[str]
) -> dict[ir.Value, Ahead]:
    """Return what lies ahead of each tensor of the main graph.

    Args:
        model: the float network.
        int8: names of the layers in INT8.
        in_float: names of the layers that are kept in float.
    """
    found: dict[ir.Value, Ahead] = {}

    def through(node: ir.Node) -> Ahead:
        """What a reader is; of one that is no layer, what lies ahead of its results."""
        if node.name in int8:
            return Ahead()
        if node.name in in_float:
            return Ahead(float_layer=True)
        return _any_of(found.get(output, Ahead()) for output in node.outputs)

    def ahead_of(value: ir.Value) -> Ahead:
        ahead = _any_of(through(use.node) for use in value.uses())
        return replace(ahead, output=True) if value.is_graph_output() else ahead

    for node in reversed(model.graph):
        for output in node.outputs:
            found[output] = ahead_of(output)
    for value in model.graph.inputs:
        found[value] = ahead_of(value)
    return found


def _any_of(several: Iterable[Ahead]) -> Ahead:
    every = tuple(several)
    return Ahead(any(one.float_layer for one in every), any(one.output for one in every))
