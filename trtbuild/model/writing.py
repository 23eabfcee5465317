"""Write a network to disk, whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.errors import OutputError
from trtbuild.files import atomic_path
from trtbuild.model.mapped_pages import give_back

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EXTERNAL_DATA_LIMIT",
    "model_bytes",
    "num_weight_bytes",
    "temporary_file",
    "write_model",
]

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
    mapped = sum(t.nbytes for t in _weights(model) if isinstance(t, ir.ExternalTensor))
    if num_weight_bytes(model) <= EXTERNAL_DATA_LIMIT and mapped <= MAPPED_LIMIT:
        with atomic_path(path) as temporary:
            temporary.write_bytes(model_bytes(model))
        return [path]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            files = _write_with_data(model, Path(folder) / path.name)
            # the graph last: it is what a reader opens
            data, graph = (file.replace(path.with_name(file.name)) for file in files)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}.") from error
    return [graph, data]


@contextlib.contextmanager
def temporary_file(model: ir.Model) -> Iterator[Path]:
    """Write `model` to a file that others can open while the block lasts; weights lie beside it.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            path = Path(folder) / "network.onnx"
            _write_with_data(model, path)
        except OSError as error:
            raise OutputError(
                f"cannot write the network for others to open: {error.strerror or error}; set TMPDIR to "
                f"a folder with {num_weight_bytes(model) / 1e6:.0f} MB to spare."
            ) from error
        yield path


def _write_with_data(model: ir.Model, path: Path) -> tuple[Path, Path]:
    """Write the graph to `path`, and its weights, whatever their size, to ``<path>.data``.

    Returns:
        Where the weights are, and where the graph is.
    """
    tensors, data = _weights(model), path.with_name(f"{path.name}.data")
    ir.save(
        model, path, external_data=data.name, callback=lambda _tensor, _info: give_back(tensors)
    )
    return data, path


def _has_external_data(model: ir.Model) -> bool:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return any(isinstance(value.const_value, ir.ExternalTensor) for value in values)


def num_weight_bytes(model: ir.Model) -> int:
    """Bytes of all weights of the main graph."""
    return sum(tensor.nbytes for tensor in _weights(model))


def _weights(model: ir.Model) -> list[ir.TensorProtocol]:
    values = (value.const_value for value in model.graph.initializers.values())
    return [tensor for tensor in values if tensor is not None]


def model_bytes(model: ir.Model) -> bytes:
    """Serialise `model` with all weights inside; at most 2 GiB."""
    if _has_external_data(model):
        model = model.clone()
        ir.external_data.load_to_model(model)
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content
