"""Write a network to disk, whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from trtbuild.files import atomic_path
from trtbuild.model.mapped_pages import give_back

__all__ = ["EXTERNAL_DATA_LIMIT", "model_bytes", "write_model"]

# A protobuf message ends at 2 GiB; some room is left for the graph itself.
EXTERNAL_DATA_LIMIT = 1_800_000_000


# Weights that lie in a file beside the network they came with are not read into memory from here on.
MAPPED_LIMIT = 256_000_000


def write_model(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`; weights beyond 1.8 GB go to ``<path>.data`` beside it.

    So do weights that are mapped from such a file already, from 256 MB on, one after the other.

    Returns:
        The files written.

    Raises:
        OutputError: the folder cannot be written.
    """
    weights = [value.const_value for value in model.graph.initializers.values()]
    tensors = [tensor for tensor in weights if tensor is not None]
    mapped = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, ir.ExternalTensor))
    size = sum(tensor.nbytes for tensor in tensors)
    if size <= EXTERNAL_DATA_LIMIT and mapped <= MAPPED_LIMIT:
        with atomic_path(path) as temporary:
            temporary.write_bytes(model_bytes(model))
        return [path]
    data = path.with_name(path.name + ".data")
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


def model_bytes(model: ir.Model) -> bytes:
    """Serialise `model` with all weights inside; at most 2 GiB."""
    inlined = model.clone()
    ir.external_data.load_to_model(inlined)
    content: bytes = ir.to_proto(inlined).SerializeToString(deterministic=True)
    return content
