"""Writing an ONNX model whole or not at all, with its weights beside it when they exceed 2 GB."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from trtbuild.errors import ModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EXTERNAL_ABOVE_BYTES", "files_of", "num_weight_bytes", "staged"]

EXTERNAL_ABOVE_BYTES = 2_000_000_000
"""A protobuf message ends at 2 GiB; the rest is left for the graph itself."""


def num_weight_bytes(model: ir.Model) -> int:
    """Bytes of all weights."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def files_of(model: ir.Model, path: Path, *, external_data: bool | None) -> tuple[Path, ...]:
    """The files that `staged` writes: `path`, and ``<name>.data`` when the weights go apart."""
    apart = external_data or num_weight_bytes(model) > EXTERNAL_ABOVE_BYTES
    return (path, path.with_name(f"{path.name}.data")) if apart else (path,)


@contextlib.contextmanager
def staged(model: ir.Model, path: Path, *, external_data: bool | None) -> Iterator[Path]:
    """Write `model` into a folder beside `path` and move it there when the block ends well.

    The block gets the path of the complete, checked file and may refuse it by raising.

    Args:
        model: the model.
        path: where it goes; the weights, if apart, go to ``<name>.data`` beside it.
        external_data: weights apart; None puts them apart only when they exceed 2 GB.

    Raises:
        ModelError: the ONNX checker refuses the model.
        OutputError: the folder cannot be written.
    """
    *_, data = files_of(model, path, external_data=external_data)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}.") from error
    try:
        written = folder / path.name
        ir.save(model, written, external_data=None if data == path else data.name)
        _check(written)
        yield written
        for file in sorted(folder.iterdir(), key=lambda file: file == written):
            file.replace(path.parent / file.name)  # the data first: a reader of the model finds it
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        raise ModelError(f"the exported model is not valid ONNX: {error}") from error
