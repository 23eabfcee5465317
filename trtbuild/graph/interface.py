"""The interface of a network: kept as its author wrote it, whatever the passes learn."""

from __future__ import annotations

import onnx_ir as ir

from trtbuild.graph.names import Names, rename_clashes

__all__ = ["Interface"]


class Interface:
    """Names, types and dims of inputs and outputs, to be put back after the passes.

    What is inferred about an output may be more than its author promised. A negative dim, which
    some exporters write for "any", is taken as unknown while the passes run.
    """

    def __init__(self, model: ir.Model) -> None:
        ends = (*model.graph.inputs, *model.graph.outputs)
        self._dims = [None if value.shape is None else value.shape.copy() for value in ends]
        self._types = [value.type for value in ends]

    def relax(self, model: ir.Model) -> None:
        """Forget negative dims of the inputs."""
        for value in model.graph.inputs:
            if value.shape is not None:
                value.shape = ir.Shape(
                    None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape
                )

    def restore(self, model: ir.Model) -> None:
        """Put types and dims back, and make all inner names unique once more."""
        ends = (*model.graph.inputs, *model.graph.outputs)
        for value, kind, shape in zip(ends, self._types, self._dims):
            value.type, value.shape = kind, shape
        for _ in rename_clashes(model, Names(model)):
            pass
