"""The network with inner tensors as its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["tapped"]


def tapped(model: ir.Model, names: Collection[str]) -> ir.Model:
    """Return a copy of `model` that gives the tensors `names`; what only others need is not run."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in dict.fromkeys(names) if name in values)
    return copy
