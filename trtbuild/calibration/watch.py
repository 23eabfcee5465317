"""The network with the watched tensors as its outputs, and which tensors can be watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.calibration.observe import WatchedNetwork
from trtbuild.model import static_batch
from trtbuild.model.edits import tapped
from trtbuild.model.operators import POOLING
from trtbuild.passes import infer_model

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["float_tensors", "pooling_inputs", "watch"]

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


def watch(model: ir.Model, tensors: Collection[str]) -> WatchedNetwork:
    """Make `tensors` the outputs of a copy of `model`; what only other outputs need is not computed.

    When nothing but inputs is watched, the original outputs stay.
    """
    return WatchedNetwork(tapped(model, tensors), tuple(tensors), static_batch(model))


def float_tensors(model: ir.Model) -> tuple[str, ...]:
    """Every float input and inner tensor of the main graph, in its order: what TensorRT 10 watches."""
    typed = model.clone()
    infer_model(typed)
    values = [*typed.graph.inputs, *(v for node in typed.graph for v in node.outputs)]
    return tuple(value.name or "" for value in values if value.dtype in _FLOATS and value.name)


def pooling_inputs(model: ir.Model) -> dict[str, str]:
    """Output of each pooling layer -> its input, whose scale TensorRT 10 gives it."""
    return {
        node.outputs[0].name or "": node.inputs[0].name or ""
        for node in model.graph
        if node.op_type in POOLING and node.inputs and node.inputs[0] is not None
    }
