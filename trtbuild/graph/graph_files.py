"""ONNX files as they are: nothing is normalised on the way in, weights stay mapped both ways."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from trtbuild.errors import ModelError
from trtbuild.files import atomic_path
from trtbuild.graph.bodies import all_graphs
from trtbuild.graph.mapped_pages import give_back

__all__ = ["read_graph", "write_graph"]

_INLINE_LIMIT = 1_800_000_000
"""Bytes of weights. A protobuf ends at 2 GiB; some room is left for the graph itself."""


def read_graph(path: Path) -> ir.Model:
    """Read an ONNX file without changing its opset, its names or its overridable initialisers.

    Raises:
        ModelError: there is no such file, or it is no ONNX graph.
    """
    if not path.is_file():
        raise ModelError(f"the model '{path}' does not exist; give the path of an ONNX file.")
    try:
        model = ir.load(path)
    except (DecodeError, OSError, ValueError, RuntimeError) as error:
        text = str(error).strip() or type(error).__name__
        raise ModelError(f"'{path}' is not an ONNX file, or it is damaged: {text}") from error
    if len(model.graph) == 0 and not model.graph.outputs:
        raise ModelError(f"'{path}' holds no graph; it is not an ONNX file, or it is cut off.")
    return model


def write_graph(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`, whole or not at all.

    Weights go to ``<path>.data`` beside it where some of them came from such a file or where they
    exceed 1.8 GB, one after the other and never all in memory.

    Returns:
        The files written, the graph first.

    Raises:
        OutputError: the folder cannot be written.
        ModelError: the graph alone is too large for a protobuf.
    """
    tensors = [
        value.const_value
        for graph in all_graphs(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    outside = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    if not outside and sum(tensor.nbytes for tensor in tensors) <= _INLINE_LIMIT:
        with atomic_path(path) as temporary:
            temporary.write_bytes(_serialized(model, path))
        return [path]
    data = path.with_name(f"{path.name}.data")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        ir.save(
            model,
            Path(folder) / path.name,
            external_data=data.name,
            callback=lambda _tensor, _info: give_back(tensors),
        )
        for file in (data, path):  # the graph last: it is what a reader opens
            (Path(folder) / file.name).replace(file)
    return [path, data]


def _serialized(model: ir.Model, path: Path) -> bytes:
    try:
        content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(f"the graph for '{path}' does not fit into a protobuf: {error}") from error
    return content
