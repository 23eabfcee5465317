"""Another operator set version for a whole network, with its weights left where they are."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx.shape_inference import InferenceError

from trtbuild.model.light import lighten
from trtbuild.passes.declined import Declined

__all__ = ["raise_opset"]

_IR_VERSION = 8
"""The oldest that ONNX Runtime and TensorRT read with opset 13 and newer."""


def raise_opset(model: ir.Model, version: int) -> None:
    """Convert `model` in place by ONNX's converter.

    Raises:
        Declined: the converter knows no way for an operator; `model` is as it was.
    """
    light = lighten(model)
    try:
        converted = version_converter.convert_version(light.proto, version)
        onnx.checker.check_model(converted, full_check=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, InferenceError) as error:
        raise Declined(f"ONNX's converter answered: {str(error).splitlines()[0]}") from error
    graph = ir.from_proto(converted).graph
    for value in list(graph.inputs):
        tensor = light.weights.get(value.name or "")
        if tensor is not None:
            graph.inputs.remove(value)
            value.const_value = tensor
            graph.register_initializer(value)
    model.graph = graph
    model.ir_version = max(model.ir_version, _IR_VERSION)
