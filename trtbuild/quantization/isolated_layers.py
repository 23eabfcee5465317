"""INT8 layers with no INT8 layer next to them: quantizing and rescaling around them serves no other layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.operators import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from trtbuild.plan import Decision

__all__ = ["layers_alone"]

_NONE: frozenset[bool] = frozenset()


def layers_alone(model: ir.Model, decisions: Iterable[Decision]) -> tuple[str, ...]:
    """Return the names of the INT8 layers between float layers, in the network's order.

    The nearest layers before such a layer, at least one, are all in float; of the nearest layers after it
    none is in INT8.

    Args:
        model: the float network.
        decisions: which nodes run in INT8.
    """
    int8 = {one.node: one.int8 for one in decisions if one.op_type in WEIGHTED}
    in_front: dict[ir.Value, frozenset[bool]] = {}
    behind: dict[ir.Value, frozenset[bool]] = {}
    nodes = tuple(model.graph)
    reached = {}
    for node in nodes:
        reached[node] = _any_of(in_front.get(value, _NONE) for value in node.inputs if value)
        in_front.update(dict.fromkeys(node.outputs, _own(node, int8, reached[node])))
    found = []
    for node in reversed(nodes):
        next_ones = _any_of(behind.get(output, _NONE) for output in node.outputs)
        if int8.get(node.name or "") and reached[node] == {False} and True not in next_ones:
            found.append(node.name or "")
        for value in filter(None, node.inputs):
            behind[value] = behind.get(value, _NONE) | _own(node, int8, next_ones)
    return tuple(reversed(found))


def _own(node: ir.Node, int8: Mapping[str, bool], passed_on: frozenset[bool]) -> frozenset[bool]:
    """Whether a layer is in INT8, as a set; for any other node, the set that it passes on."""
    name = node.name or ""
    return frozenset({int8[name]}) if name in int8 else passed_on


def _any_of(several: Iterable[frozenset[bool]]) -> frozenset[bool]:
    return _NONE.union(*several)
