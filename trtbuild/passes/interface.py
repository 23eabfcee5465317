"""The interface of a network: kept as its author wrote it, whatever the passes learn."""

from __future__ import annotations

import onnx_ir as ir

from trtbuild.model.names import Names, rename_clashes
from trtbuild.model.shapes import dims

__all__ = ["Interface"]


class Interface:
    """Names, types and dims of inputs and outputs, to be put back after the passes.

    What is inferred about an output may be more than its author promised. While the passes run, a
    dim of an input that has no name (or is negative, which some exporters write for "any") is given
    one, so that shape inference can follow it.
    """

    def __init__(self, model: ir.Model) -> None:
        ends = (*model.graph.inputs, *model.graph.outputs)
        self._dims = [None if value.shape is None else value.shape.copy() for value in ends]
        self._types = [value.type for value in ends]

    def relax(self, model: ir.Model) -> None:
        """Name the open dims of the inputs."""
        for value in model.graph.inputs:
            if value.shape is not None:
                known = dims(value) or ()
                value.shape = ir.Shape(
                    f"{value.name}[{axis}]" if dim is None else dim
                    for axis, dim in enumerate(known)
                )

    def restore(self, model: ir.Model) -> None:
        """Put types and dims back, and make all inner names unique once more."""
        ends = (*model.graph.inputs, *model.graph.outputs)
        for value, kind, shape in zip(ends, self._types, self._dims):
            value.type, value.shape = kind, shape
        for _ in rename_clashes(model, Names(model)):
            pass
