"""Weights beside a network, where ONNX Runtime reads them: in memory, or in files that it maps.

Those in memory are handed over as they are, without a copy. Those of a large network are mapped where they
were read, if they lie at a place of their type's size. All others lie in a folder of this process, each
written once, however many networks of a build hold it, and leave it when nothing holds them any more.
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
from trtbuild.files import is_named_in_utf8, temporary_folder
from trtbuild.model.constants import tensor_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.outside_weights import MappedWeight, OutsideWeight
from trtbuild.model.traversal import all_graphs

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
"""Bytes. What is no larger goes into the network itself: shapes, axes, scales, biases."""


_IN_MEMORY = Path("in-memory")
"""What a network names in place of a file, where there is none: of weights that are shared, or not read."""

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

    The file goes when the tensor does.

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
    """Return an array as `in_file` does, of which never more than a block is held.

    Args:
        blocks: of the array along its first axis, one behind the other.
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
    """Return whether a tensor is mapped from a file of this process, or from that of the network itself.

    Who writes the network writes it inside, and not into a file beside it.
    """
    return tensor in _INSIDE


def note_inside(model: ir.Model, path: Path) -> None:
    """Take down which weights of `model`, read from `path`, are mapped from that file itself."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.location == path.name:
            _INSIDE.add(tensor)


@dataclass(frozen=True)
class BesideWeights:
    """A network without its large weights.

    Attributes:
        content: the bytes of the network.
        folder: from which it names the files of weights; None where there are none.
        in_memory: the weights that lie in no file, by name, read-only.
    """

    content: bytes
    folder: Path | None
    in_memory: Mapping[str, NDArray[Any]]


def beside_weights(model: ir.Model) -> BesideWeights:
    """Return `model` without its large weights, and where those are.

    The weights are exchanged while that lasts, and put back: copying a graph costs more than writing it.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    with _LOCK:  # or another thread would take what stands in for a weight for the weight
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
    """Whether ONNX Runtime takes a weight from memory: it knows the types that NumPy has by itself."""
    return not isinstance(tensor, ir.ExternalTensor) and tensor.dtype in _OF_NUMPY


def _as_it_lies(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """The values of a weight in memory. A protobuf makes a copy each time, of which one is kept."""
    if not isinstance(tensor, ir.TensorProtoTensor):
        return np.ascontiguousarray(tensor.numpy())
    if tensor not in _TAKEN_OUT:
        _TAKEN_OUT[tensor] = np.ascontiguousarray(tensor.numpy())
    return _TAKEN_OUT[tensor]


def _in_its_file(tensor: ir.TensorProtocol, root: Path, size: str) -> ir.ExternalTensor:
    """The tensor in the file where it lies, or where it is written now, by a path from `root` on."""
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
    """The file of a mapped tensor and its place there; None where ONNX Runtime could not use that.

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
    """Let `path` hold the bytes of `tensor` as long as there is that."""
    weakref.finalize(tensor, _remove, path, os.getpid())
    _WRITTEN[tensor] = path


def _written(blocks: Iterable[NDArray[Any]], size: str) -> Path:
    """Write arrays to a new file; `size` says how much room is needed."""
    with _room_for(size):
        path = _folder() / f"{next(_NUMBERS)}.weight"
        try:
            with path.open("wb") as file:
                for block in blocks:
                    file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
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
    """What files of weights are named from: the root of the file system where those of this process lie."""
    with _room_for(size):
        return Path(_folder().anchor)


def _folder() -> Path:
    return _folder_in(tempfile.gettempdir(), os.getpid())


def _remove(path: Path, process: int) -> None:
    if os.getpid() != process:  # a fork of the one that wrote it
        return
    # Windows removes nothing that is mapped; the folder goes at the end
    with contextlib.suppress(OSError):
        path.unlink()


@functools.cache
def _folder_in(directory: str, process: int) -> Path:
    """The folder of a process in the system's temporary one, `directory`; both may change, by a fork too."""
    del directory, process
    stack = contextlib.ExitStack()
    folder = stack.enter_context(temporary_folder())
    atexit.register(stack.close)
    return Path(os.path.realpath(folder))
