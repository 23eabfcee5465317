"""Checks a parsed network: sizes, weights, and all that ONNX's checker finds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from trtbuild.errors import ModelError, decoding, first_line
from trtbuild.model.file_kinds import check_was_fetched
from trtbuild.model.outside_weights import num_bytes
from trtbuild.model.traversal import proto_graphs, proto_tensors
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_sizes", "check_valid", "check_weights"]

_MOST_ELEMENTS = 2**31 - 1

# Bytes of one value of the largest type, complex128.
_LARGEST_ITEM = 16


def check_sizes(proto: onnx.ModelProto, path: Path) -> None:
    """Check that no input has more elements than TensorRT takes.

    Raises:
        ModelError: one has.
    """
    for value in proto.graph.input:
        dims = [max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        if math.prod(dims) > _MOST_ELEMENTS:
            raise ModelError(
                f"the input '{value.name}' of '{path}' has {math.prod(dims):.2g} elements, and TensorRT "
                f"takes {_MOST_ELEMENTS} at most; export the network with smaller dims."
            )


def check_weights(proto: onnx.ModelProto, path: Path) -> None:
    """Check that the data of every tensor has the size that its type and dims give, here or in another file.

    Raises:
        ModelError: it has not, or its file is missing or lies outside the folder of `path`.
    """
    for tensor in proto_tensors(proto):
        failure = f"the weight '{tensor.name}' of '{path}' is damaged"
        with decoding(ModelError, failure, "Export or copy it again."):
            if onnx.external_data_helper.uses_external_data(tensor):
                _check_external_data(tensor, path)
            elif tensor.HasField("raw_data"):
                wanted = num_bytes(tensor)
                if len(tensor.raw_data) != wanted:
                    raise ValueError(
                        f"it has {counted(len(tensor.raw_data), 'byte')} instead of {wanted}"
                    )
            elif tensor.data_type != onnx.TensorProto.STRING:
                onnx.numpy_helper.to_array(tensor)


def _check_external_data(tensor: onnx.TensorProto, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    data = path.parent / entries.get("location", "")
    if not data.is_file():
        raise ModelError(
            f"'{path}' keeps the weight '{tensor.name}' in '{data}', which does not exist; "
            "copy that file beside the model."
        )
    if path.parent.resolve() not in data.resolve().parents:
        raise ModelError(
            f"'{path}' keeps the weight '{tensor.name}' in '{data.resolve()}', outside its folder; copy "
            "that file beside the model, and change its location in the model."
        )
    wanted = num_bytes(tensor)
    start, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
    if start < 0:
        raise ValueError(f"it begins at byte {start}")
    if length != wanted:
        raise ValueError(f"it has {counted(length, 'byte')} instead of {wanted}")
    if data.stat().st_size < start + length:
        check_was_fetched(data, f"the weight file of '{path}'", ModelError)
        raise ModelError(
            f"'{data}' is cut off: the weight '{tensor.name}' of '{path}' ends at byte {start + length}, "
            f"the file has {data.stat().st_size}. Copy it again."
        )


def _for_checker(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that the checker takes without any file: each weight in a file becomes a single number.

    The checker itself would read the network's file again, and refuse a weight file with hard links as an
    attack.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in proto_tensors(copy):
        if onnx.external_data_helper.uses_external_data(tensor) and not tensor.raw_data:
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.dims[:]
            tensor.raw_data = bytes(_LARGEST_ITEM)
    for output in _untyped_outputs(copy):  # ONNX infers nothing for unknown operators
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        output.type.tensor_type.shape.SetInParent()
    for output in copy.graph.output:
        if output.type.WhichOneof("value") == "tensor_type":
            output.type.tensor_type.shape.SetInParent()  # an unknown rank is accepted here
    return copy


def _untyped_outputs(proto: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    outputs = (output for graph in proto_graphs(proto.graph) for output in graph.output)
    return (output for output in outputs if output.type.WhichOneof("value") is None)


def check_valid(proto: onnx.ModelProto, path: Path) -> None:
    """Run ONNX's checker on the network.

    Raises:
        ModelError: the checker finds a fault.
    """
    try:
        onnx.checker.check_model(_for_checker(proto))
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"'{path}' is not a valid ONNX graph: {first_line(error).rstrip('.')}."
        ) from error
    except Exception as error:
        raise ModelError(
            f"'{path}' is damaged ({first_line(error).rstrip('.')}); export or copy it again."
        ) from error
