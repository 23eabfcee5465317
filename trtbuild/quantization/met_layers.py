"""Which layers the values of a tensor meet first on their way, and whether they leave the network before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx_ir as ir

__all__ = ["Met", "met_layers"]


@dataclass(frozen=True)
class Met:
    """What lies ahead of a tensor, up to the next layers.

    Attributes:
        int8: a layer in INT8.
        in_float: a layer that is kept in float.
        output: an output of the network, with no layer between.
    """

    int8: bool = False
    in_float: bool = False
    output: bool = False


def met_layers(
    model: ir.Model, int8: Collection[str], in_float: Collection[str]
) -> dict[ir.Value, Met]:
    """Return what each tensor of the main graph meets.

    Args:
        model: the float network.
        int8: names of the layers in INT8.
        in_float: names of the layers that are kept in float.
    """
    found: dict[ir.Value, Met] = {}

    def behind(node: ir.Node) -> Met:
        """What a reader is, or its results meet."""
        if node.name in int8:
            return Met(int8=True)
        if node.name in in_float:
            return Met(in_float=True)
        return _together(found.get(output, Met()) for output in node.outputs)

    def ahead_of(value: ir.Value) -> Met:
        met = _together(behind(use.node) for use in value.uses())
        return replace(met, output=True) if value.is_graph_output() else met

    for node in reversed(model.graph):
        for output in node.outputs:
            found[output] = ahead_of(output)
    for value in model.graph.inputs:
        found[value] = ahead_of(value)
    return found


def _together(ahead: Iterable[Met]) -> Met:
    every = tuple(ahead)
    return Met(
        any(met.int8 for met in every),
        any(met.in_float for met in every),
        any(met.output for met in every),
    )
