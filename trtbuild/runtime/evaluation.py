"""Evaluates a few nodes over constants in ONNX Runtime, which judges every result here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx
    import onnxruntime
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["EvaluationError", "evaluate", "open_session"]

_IR_VERSION = 8
"""Old enough for every ONNX Runtime that is supported, new enough for every operator set."""


class EvaluationError(Exception):
    """ONNX Runtime cannot run these nodes; says why in its own words."""


def open_session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a network on the CPU with all graph optimisation off, on one thread, silent.

    Raises:
        EvaluationError: ONNX Runtime does not take it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EvaluationError(str(error)) from error


def evaluate(
    nodes: Sequence[ir.Node],
    constants: Mapping[ir.Value, Array],
    wanted: Sequence[ir.Value],
    opset_imports: Mapping[str, int],
) -> list[Array]:
    """Run `nodes`, which are in order and read nothing but `constants` and each other.

    Args:
        nodes: the nodes; they are copied.
        constants: what they read from outside.
        wanted: outputs of theirs to answer.
        opset_imports: domain -> version.

    Raises:
        EvaluationError: ONNX Runtime has no kernel, or the nodes are invalid.
    """
    proto = ir.to_proto(_as_model(nodes, constants, wanted, opset_imports))
    session = open_session(proto)
    feeds: dict[str, Any] = {value.name or "": item for value, item in constants.items()}
    try:
        return list(session.run([value.name for value in wanted], feeds))
    except Exception as error:  # see open_session
        raise EvaluationError(str(error)) from error


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
    return ir.Model(graph, ir_version=_IR_VERSION)
