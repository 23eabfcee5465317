"""Weights in files that ONNX Runtime maps: each is written once, however many networks of a build hold it.

Those of a large network are mapped where they were read, if they lie at a place of their type's size. All
others lie in a folder of this process, and leave it when nothing holds them any more.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import OutputError
from trtbuild.files import is_named_in_utf8, temporary_folder
from trtbuild.model.constants import tensor_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.outside_weights import OutsideWeight
from trtbuild.model.traversal import all_graphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["belongs_inside", "bytes_beside_weights", "in_file", "in_file_by_blocks", "note_inside"]

_STAYS_INSIDE = 1 << 16
"""Bytes. What is no larger goes into the network itself: shapes, axes, scales, biases."""


_INSIDE: weakref.WeakSet[ir.TensorProtocol] = weakref.WeakSet()
_WRITTEN: weakref.WeakKeyDictionary[ir.TensorProtocol, Path] = weakref.WeakKeyDictionary()
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
    tensor = ir.ExternalTensor(
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


def bytes_beside_weights(model: ir.Model) -> tuple[bytes, Path]:
    """Return `model` as bytes that name the files of its large weights, and the folder from which they do.

    The weights are exchanged while that lasts, and put back: copying a graph costs more than writing it.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    count = sum(
        tensor.nbytes
        for graph in all_graphs(model.graph)
        for value in graph.initializers.values()
        if (tensor := value.const_value) is not None
    )
    size = f"{count / 1e6:.0f} MB"
    with _room_for(size):
        root = Path(_folder().anchor)
    with _LOCK:  # or another thread would take the names for weights of the network
        held = [
            (value, tensor, found)
            for graph in all_graphs(model.graph)
            for value in graph.initializers.values()
            if (tensor := value.const_value) is not None
            and (found := _named_from(root, tensor, size)) is not None
        ]
        try:
            for value, _, found in held:
                value.const_value = found
            content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
        finally:
            for value, tensor, _ in held:
                value.const_value = tensor
    give_back(tensor for _, tensor, _ in held)
    return content, root


def _named_from(root: Path, tensor: ir.TensorProtocol, size: str) -> ir.ExternalTensor | None:
    """The tensor in its file, by a path from `root` on; None for what goes into the network itself."""
    is_mapped = isinstance(tensor, ir.ExternalTensor)
    if tensor.dtype == ir.DataType.STRING or (tensor.nbytes <= _STAYS_INSIDE and not is_mapped):
        return None
    path, offset = _where_it_lies(tensor, root) or (_WRITTEN.get(tensor), 0)
    if path is None or not path.is_file():
        path = _written([np.frombuffer(tensor_bytes(tensor), np.uint8)], size)
        _keep(path, tensor)
    return ir.ExternalTensor(
        path.relative_to(root), offset, tensor.nbytes, tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()), name=tensor.name or "", base_dir=root,
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
