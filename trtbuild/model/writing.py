"""Write a network to disk, whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from trtbuild.files import atomic_path

__all__ = ["EXTERNAL_DATA_LIMIT", "model_bytes", "write_model"]

# A protobuf message ends at 2 GiB; some room is left for the graph itself.
EXTERNAL_DATA_LIMIT = 1_800_000_000


def write_model(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`; weights beyond 1.8 GB go to ``<path>.data`` beside it.

    Returns:
        The files written.

    Raises:
        OutputError: the folder cannot be written.
    """
    size = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if size <= EXTERNAL_DATA_LIMIT:
        with atomic_path(path) as temporary:
            temporary.write_bytes(model_bytes(model))
        return [path]
    data = path.with_name(path.name + ".data")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        ir.save(model, Path(folder) / path.name, external_data=data.name)
        for file in (data, path):  # the graph last: it is what a reader opens
            (Path(folder) / file.name).replace(file)
    return [path, data]


def model_bytes(model: ir.Model) -> bytes:
    """Serialise `model` with all weights inside; at most 2 GiB."""
    inlined = model.clone()
    ir.external_data.load_to_model(inlined)
    content: bytes = ir.to_proto(inlined).SerializeToString(deterministic=True)
    return content
