"""Raise the opset of a network, with what the converter of the onnx package leaves out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import version_converter

from trtbuild.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["raise_opset"]

# The oldest IR version that ONNX Runtime and TensorRT read with opset 13 and newer.
MODERN_IR = 8

# Weights of more elements than this are none of the converter's business: it looks at shapes, axes and
# scales only. They stay outside, so that no size limit of a protobuf message is met.
_LARGEST_OPERAND = 64


def raise_opset(proto: onnx.ModelProto, target: int, path: Path) -> onnx.ModelProto:
    """Return `proto` at opset `target`; weights must not be among its inputs.

    Resize before opset 11 had one rule of coordinates, which later opsets call ``asymmetric``; the
    converter leaves the newer default in place and so moves the pixels, hence the repair.

    Raises:
        ModelError: the converter knows no way for an operator of this network.
    """
    source = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    weights = _take_weights_out(proto, path)
    try:
        converted = version_converter.convert_version(proto, target)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"'{path}' has opset {source}, INT8 needs {target} here, and raising it failed: {reason}. "
            "Export the network again with opset 19."
        ) from error
    _put_weights_back(converted, weights)
    del converted.graph.value_info[:]  # inferred on the way; later stages infer their own
    converted.ir_version = max(converted.ir_version, MODERN_IR)
    if source <= 10:
        for node in _nodes(converted.graph):
            if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
                _use_old_coordinates(node)
    return converted


def _take_weights_out(proto: onnx.ModelProto, path: Path) -> list[onnx.TensorProto]:
    """Make large initializers inputs and answer them; load small ones that lie in another file."""
    graph = proto.graph
    large = [tensor for tensor in graph.initializer if _num_elements(tensor) > _LARGEST_OPERAND]
    small = [tensor for tensor in graph.initializer if _num_elements(tensor) <= _LARGEST_OPERAND]
    for tensor in small:
        if onnx.external_data_helper.uses_external_data(tensor):
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    del graph.initializer[:]
    graph.initializer.extend(small)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
    )
    return large


def _put_weights_back(proto: onnx.ModelProto, weights: Sequence[onnx.TensorProto]) -> None:
    names = {tensor.name for tensor in weights}
    kept = [value for value in proto.graph.input if value.name not in names]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(weights)


def _num_elements(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def _use_old_coordinates(node: onnx.NodeProto) -> None:
    present = {attribute.name for attribute in node.attribute}
    for name, value in (
        ("coordinate_transformation_mode", "asymmetric"),
        ("nearest_mode", "floor"),
    ):
        if name not in present:
            node.attribute.append(onnx.helper.make_attribute(name, value))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)
