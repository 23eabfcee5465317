"""Weights in a file beside the network: few are read at once, many stay in their file and are mapped.

If another process shortens a mapped file, reading it ends this process (SIGBUS). So small files are
not mapped, and the size of large ones is checked each time a weight is read.
"""

from __future__ import annotations

import itertools
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from trtbuild.errors import ModelError
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import attribute_tensors, proto_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MAPPED_LIMIT",
    "MappedWeight",
    "OutsideWeight",
    "are_small",
    "hold_weights",
    "num_bytes",
    "outside_weights",
    "read_attributes",
    "read_weight",
    "state_of",
    "watch_large_weights",
]

MAPPED_LIMIT = 256_000_000
"""Bytes. Up to this sum, weights in files are read into memory; more stay in their files."""

_CACHE_LINE = 64
"""Bytes."""


def outside_weights(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the weights and node attributes whose data lies in other files."""
    return list(filter(onnx.external_data_helper.uses_external_data, proto_tensors(proto)))


def are_small(outside: Iterable[onnx.TensorProto]) -> bool:
    """Return whether weights in other files are small enough in sum to be read into memory."""
    return sum(map(num_bytes, outside)) <= MAPPED_LIMIT


def read_attributes(proto: onnx.ModelProto, path: Path) -> None:
    """Load node attributes whose data lies in other files into the network at `path`; see `read_weight`."""
    for tensor in attribute_tensors(proto):
        if onnx.external_data_helper.uses_external_data(tensor):
            read_weight(tensor, path)


def hold_weights(model: ir.Model) -> None:
    """Read the initializers of `model` whose data lies in other files into memory, in place, each once.

    One block of memory holds them all: the system maps it with large pages, several times as fast.

    Raises:
        ModelError: a file has become shorter since it was checked.
        OSError: a file cannot be read.
    """
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    outside = [(v, one) for v in values if isinstance(one := v.const_value, ir.ExternalTensor)]
    starts = [0, *itertools.accumulate(_whole_lines(one.nbytes) for _, one in outside)]
    block = np.empty(starts[-1], np.uint8)
    for (value, tensor), start in zip(outside, starts):
        content = block[start : start + tensor.nbytes]
        _read_into(content, tensor)
        content.flags.writeable = False
        value.const_value = _in_memory(content, tensor)


def _whole_lines(num_bytes: int) -> int:
    return -(-num_bytes // _CACHE_LINE) * _CACHE_LINE


def _read_into(content: np.ndarray, tensor: ir.ExternalTensor) -> None:
    file = Path(tensor.path)
    with file.open("rb", buffering=0) as stream:
        stream.seek(tensor.offset or 0)
        rest = content.data
        while rest and (count := stream.readinto(rest)):
            rest = rest[count:]
    if rest:
        raise _cut_off(str(file), tensor.name or "")


def _in_memory(content: np.ndarray, tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    dims, name, text = tensor.shape.numpy(), tensor.name, tensor.doc_string
    if tensor.dtype.bitwidth < 8:  # several values in a byte
        packed = onnx.TensorProto(name=name, doc_string=text, dims=dims, data_type=tensor.dtype)
        packed.raw_data = content.tobytes()
        for key, value in tensor.metadata_props.items():
            packed.metadata_props.add(key=key, value=value)
        return ir.TensorProtoTensor(packed)
    array = content.view(tensor.dtype.numpy()).reshape(dims)
    held = ir.Tensor(array, tensor.dtype, name=name, doc_string=text)
    held.metadata_props.update(tensor.metadata_props)
    return held


def read_weight(tensor: onnx.TensorProto, path: Path) -> None:
    """Load the data of a weight, which lies in another file, into the tensor.

    Args:
        tensor: a tensor of the network.
        path: the network's file.

    Raises:
        ModelError: the file has become shorter since it was checked.
        OSError: it cannot be read.
    """
    place = onnx.external_data_helper.ExternalDataInfo(tensor)
    file, size = path.parent / place.location, num_bytes(tensor)
    with file.open("rb") as stream:
        stream.seek(int(place.offset or 0))
        content = stream.read(size)
    if len(content) != size:
        raise _cut_off(str(file), tensor.name)
    del tensor.external_data[:]
    tensor.ClearField("data_location")  # as if the data had always been inside
    tensor.raw_data = content


def num_bytes(tensor: onnx.TensorProto) -> int:
    """Return the number of bytes of a weight, from its type and dims.

    Raises:
        ValueError: a dim is negative.
    """
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"its dims are {list(tensor.dims)}")
    bits = int(ir.DataType(tensor.data_type).bitwidth)
    return (int(math.prod(tensor.dims)) * bits + 7) // 8


# onnx_ir maps a file on first use, which is not safe in several threads.
_MAPPING = threading.Lock()


def watch_large_weights(model: ir.Model) -> None:
    """Let `model` check the size of a weight's file each time the weight is read; in place."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = OutsideWeight(
                    *(tensor.location, tensor.offset, tensor.length, tensor.dtype),
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=tensor.name,
                    doc_string=tensor.doc_string,
                    base_dir=tensor.base_dir,
                    metadata_props=dict(tensor.metadata_props),
                )


class MappedWeight(ir.ExternalTensor):
    """A weight in a file, safe to read from several threads."""

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return self.numpy().__array__(dtype)

    def numpy(self) -> np.ndarray:
        """Return the weight, mapped."""
        with _MAPPING:
            return super().numpy()

    def tobytes(self) -> bytes:
        """Return the bytes of the weight."""
        self.numpy()
        return super().tobytes()


class OutsideWeight(MappedWeight):
    """A mapped weight that raises an error if its file is written after the network was read."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._when_read = state_of(self.path)

    def check_unchanged(self) -> None:
        """Check that the path still leads to the file that was read, before others open it by that path.

        Raises:
            ModelError: the file has been written since, or another file has its name.
            OSError: there is no such file.
        """
        self._check_whole()
        self._check_state()

    def _check_state(self) -> None:
        if state_of(self.path) != self._when_read:
            raise ModelError(
                f"'{self.path}' was written after it was read: the weight '{self.name}' may have "
                "changed. Start again, and do not write to it meanwhile."
            )

    def numpy(self) -> np.ndarray:
        """Return the weight, mapped."""
        self._check_whole()
        return super().numpy()

    def tofile(self, file: Any) -> None:
        """Write the bytes of the weight; onnx_ir reads them from the file by its path."""
        self.check_unchanged()
        super().tofile(file)

    def _check_path_containment(self) -> None:
        """Do nothing: `trtbuild.model.reading` has checked the paths, and a file may have hard links."""

    def _check_whole(self) -> None:
        # the mapped file's size, even where another file has taken its name since
        size = Path(self.path).stat().st_size if self.raw is None else self.raw.size()
        if size < (self.offset or 0) + self.nbytes:
            raise _cut_off(self.path, self.name)
        if self.raw is None:
            self._check_state()  # from now on the mapping stays, even if another file takes the name


def state_of(path: str | Path) -> tuple[int, ...]:
    """Return the values that change when a file is written, or when another file takes its name."""
    found = Path(path).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _cut_off(file: str, weight: str) -> ModelError:
    return ModelError(
        f"'{file}' was truncated while it was read: the weight '{weight}' is incomplete. Copy it again, "
        "and do not write to it meanwhile."
    )
