"""What ONNX Runtime opens for a network: a path or bytes, and the weights that it gets separately."""

from __future__ import annotations

import gc
import mmap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.files import is_named_in_utf8
from trtbuild.model.mapped_pages import large_blocks_go_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir as ir
    import onnxruntime as ort

__all__ = ["for_exact_kernels", "is_mapped", "readable", "with_float_weights_apart"]

_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"

# Bytes of a weight element in a session that computes in float, whatever its stored type.
_FLOAT_BYTES = 4


def is_mapped(model: ir.Model | Path) -> bool:
    """Return whether the weights are so large that they are mapped from their files instead of loaded.

    Graphs refer to themselves: discarded ones keep their weights until the garbage collector runs.
    """
    from trtbuild.model.outside_weights import MAPPED_LIMIT
    from trtbuild.model.reading import read_as_written
    from trtbuild.model.writing import bytes_on_disk, num_weights

    if isinstance(model, Path):  # count as for its model: all processes decide the same
        if bytes_on_disk(model) * _FLOAT_BYTES <= MAPPED_LIMIT:
            return False
        model = read_as_written(model)
    large = num_weights(model) * _FLOAT_BYTES > MAPPED_LIMIT
    if large:
        gc.collect()
    return large


def with_float_weights_apart(model: ir.Model | Path) -> ir.Model | Path:
    """Return a network in memory with INT8 weights dequantized into files; a file stays as it is."""
    from trtbuild.runtime.dequantized_weights import with_float_weights

    return model if isinstance(model, Path) else with_float_weights(model)


def readable(
    model: ir.Model | Path | bytes, options: ort.SessionOptions
) -> tuple[str | bytes, Mapping[str, np.ndarray]]:
    """Return what ONNX Runtime opens, a path or bytes, and the weights that it gets separately, by name.

    A protobuf with the weights is limited to 2 GiB, and is another copy in memory.
    """
    if isinstance(model, bytes):
        return model, {}
    if isinstance(model, Path):
        return _readable_file(model, options), {}
    from trtbuild.model.outside_weights import MAPPED_LIMIT
    from trtbuild.model.stored_weights import beside_weights
    from trtbuild.model.writing import num_weight_bytes

    if num_weight_bytes(model) > MAPPED_LIMIT:
        large_blocks_go_back()
    beside = beside_weights(model)
    if beside.folder is not None:
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(beside.folder))
    return beside.content, beside.in_memory


def _readable_file(path: Path, options: ort.SessionOptions) -> str | bytes:
    """What ONNX Runtime opens for a file; large ones without weights, which it would also hold as parsed."""
    from google.protobuf.message import DecodeError

    from trtbuild.model.outside_weights import MAPPED_LIMIT
    from trtbuild.model.weights_apart import read_apart

    if not is_named_in_utf8(str(path)):
        return path.read_bytes()
    if not path.is_file() or path.stat().st_size <= MAPPED_LIMIT:
        return str(path)
    large_blocks_go_back()
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            apart = read_apart(content, path.name, only_aligned=True)
    except (DecodeError, ValueError):
        return str(path)  # not a network: ONNX Runtime reports it
    options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(path.absolute().parent))
    return apart


def for_exact_kernels(
    source: str | bytes, in_memory: Mapping[str, np.ndarray], options: ort.SessionOptions
) -> tuple[str | bytes, Mapping[str, np.ndarray]]:
    """Return the network of `readable` with weights that ONNX Runtime's exact kernels open and run fast."""
    source, in_memory = _with_unshared_weights(source, in_memory, options)
    return _with_unsigned_weights(source, in_memory, options)


def _with_unshared_weights(
    source: str | bytes, in_memory: Mapping[str, np.ndarray], options: ort.SessionOptions
) -> tuple[str | bytes, Mapping[str, np.ndarray]]:
    """The same network without shared INT8 weights, which cannot be opened with exact kernels."""
    from google.protobuf.message import DecodeError

    from trtbuild.runtime.unshared_weights import with_unshared_weights

    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        changed, added = with_unshared_weights(content)
    except (OSError, DecodeError):
        return source, in_memory  # ONNX Runtime reports what is wrong
    if changed is content:
        return source, in_memory
    if isinstance(source, str):
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(Path(source).absolute().parent))
    own = {name: in_memory[other] for name, other in added.items() if other in in_memory}
    return changed, {**in_memory, **own}


def _with_unsigned_weights(
    source: str | bytes, in_memory: Mapping[str, np.ndarray], options: ort.SessionOptions
) -> tuple[str | bytes, Mapping[str, np.ndarray]]:
    """The same network with large INT8 weights made unsigned, for which ONNX Runtime takes far longer."""
    from trtbuild.runtime.unsigned_weights import with_unsigned_weights

    with suppress(RuntimeError):  # no weight lies in a file
        folder = Path(options.get_session_config_entry(_FOLDER_OF_WEIGHTS))
        source, made = with_unsigned_weights(source, folder)
        in_memory = {**in_memory, **made}
    return source, in_memory
