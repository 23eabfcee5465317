"""Finds ReLU, ReLU6 and clip directly after a layer: the layer's output range is taken after them.

TensorRT fuses layer and activation into one kernel, so the range of the tensor between them is never used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.json_codec import NOT_IN_JSON
from trtbuild.pytorch.aten import calls, module_path, name_of
from trtbuild.pytorch.fold.layers import LayerCall, arguments
from trtbuild.pytorch.fold.plan import moves_values_only

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["LayerActivation", "find_activations"]

_CLIPS = frozenset(("relu", "relu6", "hardtanh", "clamp", "clamp_min"))


@dataclass(frozen=True)
class LayerActivation:
    """A layer and the activation that is the only reader of its output.

    Attributes:
        layer: module path of the layer (graph node name if it is functional).
        activation: module path of the activation, or its graph node.
        low, high: the bounds of the activation; None where it has none.
        node: the activation's graph node, after which the exporter names the tensor.
    """

    layer: str
    activation: str
    low: float | None
    high: float | None
    node: str = field(default="", metadata=NOT_IN_JSON)


def find_activations(program: ExportedProgram) -> tuple[LayerActivation, ...]:
    """Return all layer-activation pairs of a graph, skipping norms and value-preserving operators between."""
    found = []
    for node in calls(program):
        if LayerCall.of(node) is None:
            continue
        reader = _only_reader(node)
        while reader is not None and moves_values_only(reader):
            reader = _only_reader(reader)
        if reader is not None and name_of(reader).rstrip("_") in _CLIPS:
            low, high = _bounds(reader)
            layer = module_path(node) or node.name
            found.append(
                LayerActivation(layer, module_path(reader) or reader.name, low, high, reader.name)
            )
    return tuple(found)


def _only_reader(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _bounds(node: Node) -> tuple[float | None, float | None]:
    name = name_of(node).rstrip("_")
    if name in ("relu", "relu6"):
        return 0.0, 6.0 if name == "relu6" else None
    given = arguments(node)
    low = given.get("min_val", given.get("min"))
    high = given.get("max_val", given.get("max"))
    return low, high
