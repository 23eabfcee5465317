"""Evaluates a few nodes on constants in ONNX Runtime, the reference for every result here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.graph_library import ir
from trtbuild.model.opset import MODERN_IR
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["evaluate"]


def evaluate(
    nodes: Sequence[ir.Node],
    constants: Mapping[ir.Value, Array],
    wanted: Sequence[ir.Value],
    opset_imports: Mapping[str, int],
) -> list[Array]:
    """Return the results of `nodes`, which are in order and read only `constants` and each other.

    Args:
        nodes: the nodes; they are copied.
        constants: the values that they read from outside.
        wanted: the outputs to return.
        opset_imports: domain -> version.

    Raises:
        ExecutionError: ONNX Runtime has no kernel, or the nodes are invalid.
    """
    model = _as_model(nodes, constants, wanted, opset_imports)
    session = open_session(model, Execution.REFERENCE, threads=1, arena=False)
    outputs = session.run({value.name or "": content for value, content in constants.items()})
    return [outputs[value.name or ""] for value in wanted]


def _as_model(
    nodes: Sequence[ir.Node],
    constants: Mapping[ir.Value, Array],
    wanted: Sequence[ir.Value],
    opset_imports: Mapping[str, int],
) -> ir.Model:
    copies: dict[ir.Value, ir.Value] = {
        value: ir.Value(
            name=value.name,
            type=ir.TensorType(ir.DataType.from_numpy(content.dtype)),
            shape=ir.Shape(content.shape),
        )
        for value, content in constants.items()
    }
    copied = []
    for node in nodes:
        inputs = [None if value is None else copies[value] for value in node.inputs]
        copy = ir.Node(
            "", node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs)
        )
        for old, new in zip(node.outputs, copy.outputs):
            new.name, new.type = old.name, old.type
            copies[old] = new
        copied.append(copy)
    graph = ir.Graph(
        [copies[value] for value in constants],
        [copies[value] for value in wanted],
        nodes=copied,
        opset_imports=dict(opset_imports),
        name="constants",
    )
    return ir.Model(graph, ir_version=MODERN_IR)
