"""Raise the opset of an old network, with what the converter of the onnx package leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import version_converter

from trtbuild.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["raise_opset"]

# The oldest IR version that ONNX Runtime and TensorRT read with opset 13 and newer.
MODERN_IR = 8


def raise_opset(proto: onnx.ModelProto, target: int, path: Path) -> onnx.ModelProto:
    """Answer `proto` at opset `target`.

    Resize before opset 11 had one rule of coordinates, which later opsets call ``asymmetric``; the
    converter leaves the newer default in place and so moves the pixels, hence the repair.

    Raises:
        ModelError: the converter knows no way for an operator of this network.
    """
    source = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    try:
        converted = version_converter.convert_version(proto, target)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"'{path}' has opset {source}, per-channel INT8 needs {target}, and raising it failed: "
            f"{reason}. Export the network again with opset 17 or 18."
        ) from error
    del converted.graph.value_info[:]  # inferred on the way; later stages infer their own
    converted.ir_version = max(converted.ir_version, MODERN_IR)
    if source <= 10:
        for node in _nodes(converted.graph):
            if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
                _use_old_coordinates(node)
    return converted


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
