"""INT8 weights of large matrices made unsigned: for ONNX Runtime on older x86 processors.

Where a processor has no VNNI instructions, ONNX Runtime makes unsigned weights of signed ones (its
`Avx2WeightS8ToU8Transformer`), byte by byte and through several copies. Made here, they are mapped.
"""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from trtbuild.errors import OutputError
from trtbuild.model.mapped_pages import LARGE
from trtbuild.model.stored_weights import in_file_by_blocks
from trtbuild.model.traversal import proto_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["with_unsigned_weights"]

# What changes between the INT8 and the UINT8 of the same step.
_SIGN = np.uint8(0x80)


def with_unsigned_weights(
    content: str | bytes, folder: Path
) -> tuple[str | bytes, dict[str, NDArray[np.uint8]]]:
    """Make large INT8 weights unsigned that lie in files and are multiplied with unsigned activations.

    The values they stand for stay the same: their zero points change with them. Weights and zero points
    that several nodes read are left alone, and so are those that a caller may pass. What cannot be read, or
    has no room in the temporary folder, is left for ONNX Runtime to work on or to report.

    Args:
        content: the bytes of the network; a path is returned as it is.
        folder: where it names the files of weights from.

    Returns:
        The bytes of the changed network, and its new weights by name, mapped from files of this process.
    """
    if isinstance(content, str):
        return content, {}
    try:
        return _changed(content, folder)
    except (DecodeError, OSError, ValueError, OutputError):
        return content, {}


def _changed(content: bytes, folder: Path) -> tuple[bytes, dict[str, NDArray[np.uint8]]]:
    proto, made = onnx.ModelProto.FromString(content), {}
    for weight, zero in _weights(proto):
        place = onnx.external_data_helper.ExternalDataInfo(weight)
        signed = np.memmap(
            folder / place.location, np.uint8, "r", place.offset or 0, tuple(weight.dims)
        )
        kept = in_file_by_blocks(_unsigned(signed), signed.shape, signed.dtype, weight.name)
        made[weight.name] = kept.numpy()
        weight.data_type = onnx.TensorProto.UINT8
        steps = onnx.numpy_helper.to_array(zero).view(np.uint8) ^ _SIGN
        zero.CopyFrom(onnx.numpy_helper.from_array(steps, zero.name))
    return (proto.SerializeToString() if made else content), made


def _unsigned(signed: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The bytes of INT8 steps as UINT8 steps, about a megabyte at a time."""
    rows = max(1, LARGE * len(signed) // signed.size)
    for start in range(0, len(signed), rows):
        yield signed[start : start + rows] ^ _SIGN


def _weights(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, onnx.TensorProto]]:
    """Yield the weights that are made unsigned, each with its zero point."""
    graph = proto.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    constants = {one.name: one for one in graph.initializer if one.name not in ends}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = collections.defaultdict(list)
    for node in proto_nodes(graph):
        for name in node.input:
            readers[name].append(node)
    for node in graph.node:
        weight, zero = _constants_of(node, constants)
        if weight is None or zero is None or node.output[0] in ends:
            continue
        are_own = len(readers[weight.name]) == 1 == len(readers[zero.name])
        if are_own and _is_large(weight) and _is_int8(zero):
            reading = readers[node.output[0]]
            others = [makers.get(one.input[0]) for one in reading if one.op_type == "MatMul"]
            zeros = [_constants_of(one, constants)[1] for one in others]
            if len(zeros) == len(reading) and all(map(_is_uint8, zeros)):
                yield weight, zero


def _constants_of(
    node: onnx.NodeProto | None, constants: Mapping[str, onnx.TensorProto]
) -> tuple[onnx.TensorProto | None, onnx.TensorProto | None]:
    """The steps and the zero point of a DequantizeLinear, where they are constants."""
    if node is None or node.op_type != "DequantizeLinear" or len(node.input) < 3:
        return None, None
    return constants.get(node.input[0]), constants.get(node.input[2])


def _is_large(weight: onnx.TensorProto) -> bool:
    """Whether a weight is INT8, in a file, and large."""
    in_file = weight.data_location == onnx.TensorProto.EXTERNAL
    return bool(in_file and _is_int8(weight) and math.prod(weight.dims) >= LARGE)


def _is_int8(tensor: onnx.TensorProto) -> bool:
    return int(tensor.data_type) == int(onnx.TensorProto.INT8)


def _is_uint8(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and int(tensor.data_type) == int(onnx.TensorProto.UINT8)
