"""Passes a network's weights to ONNX Runtime apart from it: in memory, or in files that ONNX Runtime maps.

Weights in memory are passed without a copy. Weights of a large network are mapped from the file that
they were read from, if they are aligned to the size of their type. All others are written into a folder of
this process, each once, even if several networks of a build hold it, and deleted when nothing holds them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import math
import os
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import OutputError
from trtbuild.files import is_named_in_utf8, write_in_parts
from trtbuild.model.constants import tensor_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.outside_weights import MappedWeight, OutsideWeight
from trtbuild.model.traversal import all_graphs
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = [
    "BesideWeights",
    "belongs_inside",
    "beside_weights",
    "in_file",
    "in_file_by_blocks",
    "note_inside",
]

_STAYS_INSIDE = 1 << 16
"""Bytes. Tensors up to this size go into the network itself: shapes, axes, scales, biases."""


_IN_MEMORY = Path("in-memory")
"""The file name of weights that are in no file: those passed in memory, and those that nothing reads."""

_OF_NUMPY = frozenset(
    ir.DataType.from_numpy(np.dtype(name))
    for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
)

_INSIDE: weakref.WeakSet[ir.TensorProtocol] = weakref.WeakSet()
_WRITTEN: weakref.WeakKeyDictionary[ir.TensorProtocol, Path] = weakref.WeakKeyDictionary()
_TAKEN_OUT: weakref.WeakKeyDictionary[ir.TensorProtocol, NDArray[Any]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()
_NUMBERS = itertools.count()


def in_file(content: NDArray[Any], name: str | None = None) -> ir.ExternalTensor:
    """Write an array to a file of this process, and return it as a tensor that is mapped from there.

    The file is deleted with the tensor.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    return in_file_by_blocks([content], content.shape, content.dtype, name)


def in_file_by_blocks(
    blocks: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name: str | None = None,
) -> ir.ExternalTensor:
    """Do as `in_file`, but hold only one block of the array at a time.

    Args:
        blocks: consecutive blocks of the array along its first axis.
        shape: of the whole array.
        dtype: of the whole array.
        name: of the tensor.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    size = math.prod(shape) * dtype.itemsize
    path = _written(blocks, f"more than {size / 1e6:.0f} MB")
    tensor = MappedWeight(
        path.name, 0, size, ir.DataType.from_numpy(dtype),
        shape=ir.Shape(shape), name=name or "", base_dir=path.parent,
    )  # fmt: skip
    _keep(path, tensor)
    _INSIDE.add(tensor)
    return tensor


def belongs_inside(tensor: ir.TensorProtocol) -> bool:
    """Return whether a tensor is mapped from a file of this process, or from the network's own file.

    Writing the network puts such a tensor inside it, not into a file beside it.
    """
    return tensor in _INSIDE


def note_inside(model: ir.Model, path: Path) -> None:
    """Remember which weights of `model`, read from `path`, are mapped from that file itself."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.location == path.name:
            _INSIDE.add(tensor)


@dataclass(frozen=True)
class BesideWeights:
    """A network without its large weights.

    Attributes:
        content: the bytes of the network.
        folder: the folder that paths of weight files are relative to; None where there are no files.
        in_memory: the weights that are in no file, by name, read-only.
    """

    content: bytes
    folder: Path | None
    in_memory: Mapping[str, NDArray[Any]]


def beside_weights(model: ir.Model) -> BesideWeights:
    """Return `model` without its large weights, and the weights.

    The model's weights are replaced for the moment and then restored: copying a graph takes longer than
    writing it.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    with _LOCK:  # otherwise another thread would see the replacements
        held = [
            (value, tensor)
            for graph in all_graphs(model.graph)
            for value in graph.initializers.values()
            if (tensor := value.const_value) is not None and _goes_beside(tensor)
        ]
        read = [(v, one) for v, one in held if v.uses() or v.is_graph_output()]
        outermost = set(model.graph.initializers.values()).difference(model.graph.inputs)
        shared = {v: _as_it_lies(one) for v, one in read if v in outermost and _can_be_shared(one)}
        size = f"{sum(tensor.nbytes for _, tensor in read) / 1e6:.0f} MB"
        root = None if len(shared) == len(read) else _root(size)
        files = {v: _in_its_file(one, root, size) for v, one in read if root and v not in shared}
        try:
            for value, tensor in held:
                value.const_value = files.get(value) or _named(tensor, _IN_MEMORY)
            content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
        finally:
            for value, tensor in held:
                value.const_value = tensor
    give_back(tensor for _, tensor in held)
    return BesideWeights(content, root, {v.name or "": one for v, one in shared.items()})


def _goes_beside(tensor: ir.TensorProtocol) -> bool:
    large = tensor.nbytes > _STAYS_INSIDE and tensor.dtype != ir.DataType.STRING
    return large or isinstance(tensor, ir.ExternalTensor)


def _can_be_shared(tensor: ir.TensorProtocol) -> bool:
    """Whether ONNX Runtime takes a weight from memory, which it does for NumPy's own types."""
    return not isinstance(tensor, ir.ExternalTensor) and tensor.dtype in _OF_NUMPY


def _as_it_lies(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """The values of a weight in memory; a protobuf copies them on each access, so one copy is kept."""
    if not isinstance(tensor, ir.TensorProtoTensor):
        return np.ascontiguousarray(tensor.numpy())
    if tensor not in _TAKEN_OUT:
        _TAKEN_OUT[tensor] = np.ascontiguousarray(tensor.numpy())
    return _TAKEN_OUT[tensor]


def _in_its_file(tensor: ir.TensorProtocol, root: Path, size: str) -> ir.ExternalTensor:
    """The tensor in its file, which is written now if there is none; the path is relative to `root`."""
    path, offset = _where_it_lies(tensor, root) or (_WRITTEN.get(tensor), 0)
    if path is None or not path.is_file():
        path = _written([np.frombuffer(tensor_bytes(tensor), np.uint8)], size)
        _keep(path, tensor)
    return _named(tensor, path.relative_to(root), offset, root)


def _named(
    tensor: ir.TensorProtocol, location: Path, offset: int = 0, folder: Path | str = ""
) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        location, offset, tensor.nbytes, tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()), name=tensor.name or "", base_dir=folder,
    )  # fmt: skip


def _where_it_lies(tensor: ir.TensorProtocol, root: Path) -> tuple[Path, int] | None:
    """The file of a mapped tensor and its offset; None where ONNX Runtime cannot map it there.

    Raises:
        ModelError: the file has been written since it was read.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return None
    path, offset = Path(tensor.path).resolve(), tensor.offset or 0
    if (
        path.anchor != str(root)
        or not is_named_in_utf8(str(path))
        or offset % tensor.dtype.itemsize
    ):
        return None
    if isinstance(tensor, OutsideWeight):
        tensor.check_unchanged()
    return path, offset


def _keep(path: Path, tensor: ir.TensorProtocol) -> None:
    """Register `path` as the file of `tensor`, to be deleted with it."""
    weakref.finalize(tensor, _remove, path, os.getpid())
    _WRITTEN[tensor] = path


def _written(blocks: Iterable[NDArray[Any]], size: str) -> Path:
    """Write arrays to a new file; `size` is the space needed, for the error message."""
    with _room_for(size):
        path = _folder() / f"{next(_NUMBERS)}.weight"
        try:
            with path.open("wb") as file:
                for block in blocks:
                    content = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
                    write_in_parts(file, content.data)
        except OSError:
            _remove(path, os.getpid())
            raise
        return path


@contextlib.contextmanager
def _room_for(size: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or "no room is left"
        raise OutputError(
            f"cannot write weights for others to open: {reason}; set TMPDIR to a folder with {size} to spare."
        ) from error


def _root(size: str) -> Path:
    """The folder that paths of weight files are relative to: the root of this process' file system."""
    with _room_for(size):
        return Path(_folder().anchor)


def _folder() -> Path:
    return _folder_in(tempfile.gettempdir(), os.getpid())


def _remove(path: Path, process: int) -> None:
    if os.getpid() != process:  # a fork of the process that wrote it
        return
    # Windows removes no mapped file; the folder is removed at the end
    with contextlib.suppress(OSError):
        path.unlink()


@functools.cache
def _folder_in(directory: str, process: int) -> Path:
    """The folder of a process inside the temporary folder `directory`; a fork has another `process`."""
    del directory, process
    stack = contextlib.ExitStack()
    folder = stack.enter_context(temporary_folder())
    atexit.register(stack.close)
    return Path(os.path.realpath(folder))
