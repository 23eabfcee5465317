"""Weights in files that ONNX Runtime maps: each is written once, however many networks of a build hold it.

They lie in a folder of this process, since ONNX Runtime dies of a file that another process cuts short, and
leave it when nothing holds them any more.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from trtbuild.errors import OutputError
from trtbuild.files import temporary_folder
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.traversal import all_graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["belongs_inside", "bytes_beside_weights", "in_file", "note_inside"]

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
    path = _written(content, f"more than {content.nbytes / 1e6:.0f} MB")
    dtype = ir.DataType.from_numpy(content.dtype)
    tensor = ir.ExternalTensor(
        path.name, 0, content.nbytes, dtype,
        shape=ir.Shape(content.shape), name=name or "", base_dir=path.parent,
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
    path = _WRITTEN.get(tensor)
    if path is None or not path.is_file():
        path = _written(np.frombuffer(tensor.tobytes(), np.uint8), size)
        _keep(path, tensor)
    return ir.ExternalTensor(
        path.relative_to(root), 0, tensor.nbytes, tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()), name=tensor.name or "", base_dir=root,
    )  # fmt: skip


def _keep(path: Path, tensor: ir.TensorProtocol) -> None:
    """Let `path` hold the bytes of `tensor` as long as there is that."""
    weakref.finalize(tensor, _remove, path, os.getpid())
    _WRITTEN[tensor] = path


def _written(content: NDArray[Any], size: str) -> Path:
    """Write an array to a new file; `size` says how much room is needed."""
    with _room_for(size):
        path = _folder() / f"{next(_NUMBERS)}.weight"
        try:
            with path.open("wb") as file:
                np.ascontiguousarray(content).tofile(file)
        except OSError:
            _remove(path, os.getpid())
            raise
        return path


@contextlib.contextmanager
def _room_for(size: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or "no room is left"  # NumPy counts what it has written
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
