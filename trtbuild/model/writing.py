"""Writes a network: a file, whole or not at all, or a protobuf with its weights beside it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import OutputError
from trtbuild.files import atomic_path, data_beside, flushed_meanwhile, staged_files
from trtbuild.model.collecting import collector_at_rest
from trtbuild.model.constants import mapped_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.outside_weights import MAPPED_LIMIT
from trtbuild.model.stored_weights import belongs_inside
from trtbuild.model.traversal import all_graphs
from trtbuild.model.weights_apart import write_together
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

__all__ = [
    "EXTERNAL_DATA_LIMIT",
    "WithoutWeights",
    "bytes_on_disk",
    "files_of",
    "model_bytes",
    "num_weight_bytes",
    "num_weights",
    "staged_model",
    "temporary_file",
    "without_weights",
    "write_model",
]

# A protobuf message may have 2 GiB; the difference is for the graph itself.
EXTERNAL_DATA_LIMIT = 1_800_000_000


@collector_at_rest()
def write_model(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`, as `staged_model` does.

    Returns:
        The files written.

    Raises:
        OutputError: the folder cannot be written.
    """
    with staged_model(model, path):
        return list(files_of(model, path))


def files_of(model: ir.Model, path: Path, *, external_data: bool | None = None) -> tuple[Path, ...]:
    """Return the files that `staged_model` writes: `path`, and ``<path>.data`` if weights go beside it."""
    mapped = sum(
        one.nbytes
        for one in _weights(model)
        if isinstance(one, ir.ExternalTensor) and not belongs_inside(one)
    )
    large = num_weight_bytes(model) > EXTERNAL_DATA_LIMIT or mapped > MAPPED_LIMIT
    return (path, data_beside(path)) if external_data or large else (path,)


@contextlib.contextmanager
def staged_model(
    model: ir.Model, path: Path, *, external_data: bool | None = None
) -> Iterator[Path]:
    """Yield the path of the complete file, and move it to `path` if the block succeeds.

    Weights of more than 1.8 GB go to ``<path>.data`` beside it. So do weights that are mapped from a file
    beside a network, from 256 MB on, one after the other. If the block raises, no file is left.

    Args:
        model: the network.
        path: the target.
        external_data: True puts weights of any size beside the network.

    Raises:
        OutputError: the folder cannot be written.
    """
    if len(files_of(model, path, external_data=external_data)) == 1:
        with atomic_path(path) as temporary:
            _write_whole(model, temporary)
            yield temporary
        return
    if not path.parent.is_dir():
        raise OutputError(f"cannot write '{path}': there is no such folder.")
    with staged_files(path.parent, last=path.name) as folder:
        with flushed_meanwhile(folder):
            _write_with_data(model, folder / path.name)
        yield folder / path.name


@contextlib.contextmanager
def temporary_file(model: ir.Model, name: str = "network") -> Iterator[Path]:
    """Write `model` to a file that others can open during the block, with its weights beside it.

    Args:
        model: the network.
        name: name of the file, without its suffix.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(temporary_folder()) / f"{name}.onnx"
            _write_with_data(model, path)
        except OSError as error:
            raise OutputError(
                f"cannot write the network for others to open: {error.strerror or error}; set TMPDIR to "
                f"a folder with {num_weight_bytes(model) / 1e6:.0f} MB to spare."
            ) from error
        yield path


def _write_whole(model: ir.Model, path: Path) -> None:
    """Write `model` to one file; mapped weights are copied there one after the other."""
    mapped = {
        name: tensor
        for name, value in model.graph.initializers.items()
        if isinstance(tensor := value.const_value, ir.ExternalTensor)
    }
    held = [v for g in model.graph.subgraphs() for v in g.initializers.values()]
    if not mapped or any(isinstance(v.const_value, ir.ExternalTensor) for v in held):
        path.write_bytes(model_bytes(model))
        return
    content = ir.to_proto(model).SerializeToString(deterministic=True)
    with path.open("wb") as file:
        write_together(content, file, {name: mapped_bytes(one) for name, one in mapped.items()})
    give_back(mapped.values())


def _write_with_data(model: ir.Model, path: Path) -> None:
    """Write the graph to `path`, and weights of any size to ``<path>.data``."""
    tensors, data = _weights(model), data_beside(path)
    ir.save(
        model, path, external_data=data.name, callback=lambda _tensor, _info: give_back(tensors)
    )


def bytes_on_disk(path: Path) -> int:
    """Return the size of a file that `write_model` wrote, with its weights beside it; 0 if there is none."""
    return sum(one.stat().st_size for one in (path, data_beside(path)) if one.is_file())


def _has_external_data(model: ir.Model) -> bool:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return any(isinstance(value.const_value, ir.ExternalTensor) for value in values)


def num_weight_bytes(model: ir.Model) -> int:
    """Return the bytes of all weights of the main graph."""
    return sum(tensor.nbytes for tensor in _weights(model))


def num_weights(model: ir.Model) -> int:
    """Return the number of elements of all weights of the main graph."""
    return sum(tensor.size for tensor in _weights(model))


def _weights(model: ir.Model) -> list[ir.TensorProtocol]:
    values = (value.const_value for value in model.graph.initializers.values())
    return [tensor for tensor in values if tensor is not None]


def model_bytes(model: ir.Model) -> bytes:
    """Serialize `model` with all weights inside; at most 2 GiB."""
    if _has_external_data(model):
        model = model.clone()
        ir.external_data.load_to_model(model)
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


_STAYS_INSIDE = 1024
"""Bytes. Shapes, axes and scalars stay inside, where shape inference needs them."""


@dataclass(frozen=True)
class WithoutWeights:
    """A network as a protobuf, without its large weights.

    Attributes:
        proto: the network; each of `weights` is an input of its graph.
        weights: name -> tensor.
    """

    proto: onnx.ModelProto
    weights: dict[str, ir.TensorProtocol]


def without_weights(model: ir.Model) -> WithoutWeights:
    """Return `model` as a protobuf whose large weights are inputs: ONNX's C++ tools take it at any size.

    It stays far below the protobuf limit of 2 GiB, and mapped weights stay mapped. The weights are taken out
    of `model` for the moment and then restored: copying a graph takes longer than writing it.
    """
    weights: dict[str, ir.Value] = {}
    held = [(graph, list(graph.initializers.values())) for graph in all_graphs(model.graph)]
    inputs = len(model.graph.inputs)
    for graph, values in held:
        for value in values:
            name, tensor = value.name or "", value.const_value
            if tensor is not None and name not in weights and _goes_aside(value, tensor):
                weights[name] = value
                del graph.initializers[name]
    tensors = {name: value.const_value for name, value in weights.items()}
    model.graph.inputs.extend(weights.values())
    try:
        proto = ir.to_proto(model)
    finally:
        model.graph.inputs[inputs:] = []  # only a slice assignment unmarks them as inputs
        for graph, values in held:
            _put_back(graph, values)
    return WithoutWeights(proto, {name: item for name, item in tensors.items() if item is not None})


def _goes_aside(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    if value.is_graph_input() or value.is_graph_output():
        return False
    if tensor.nbytes <= _STAYS_INSIDE:
        if isinstance(tensor, ir.ExternalTensor):  # its values may decide shapes, so they go inside
            content = tensor.numpy().copy()
            value.const_value = ir.Tensor(content, dtype=tensor.dtype, name=value.name)
        return False
    if tensor.dtype.numpy().kind not in "biuf":
        return False  # ONNX Runtime takes no arrays of this type
    value.type = ir.TensorType(tensor.dtype)
    value.shape = ir.Shape(tensor.shape.numpy())
    return True


def _put_back(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Restore the initializers of `graph`, in their order."""
    if len(graph.initializers) == len(values):
        return
    for name in list(graph.initializers):
        del graph.initializers[name]
    for value in values:
        graph.initializers.add(value)
