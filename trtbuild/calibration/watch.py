"""The network with the watched tensors as its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["watching"]


def watching(model: ir.Model, tensors: Collection[str]) -> ir.Model:
    """Answer a copy of `model` whose outputs are `tensors`; inputs among them are left out.

    What only the original outputs needed is not computed. When nothing but inputs is watched, the
    original outputs stay.
    """
    watched = model.clone()
    produced = [v for node in watched.graph for v in node.outputs if v.name in tensors]
    if produced:
        watched.graph.outputs.clear()
        watched.graph.outputs.extend(produced)
    return watched
