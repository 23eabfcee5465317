"""Open an engine file with the backend that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.backends import AUTO, choose_backend
from trtbuild.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.backends.base import Session

__all__ = ["backend_of", "open_engine"]


def backend_of(path: Path, backend: str = AUTO) -> str:
    """Name the backend that opens `path`: as asked, else by the file's suffix."""
    if backend != AUTO:
        return backend
    return "onnxruntime" if path.suffix == ".onnx" else "tensorrt"


def open_engine(
    path: Path, backend: str = AUTO, settings: Mapping[str, Any] | None = None
) -> Session:
    """Open an ONNX file in ONNX Runtime, anything else as a TensorRT plan.

    Args:
        path: the engine.
        backend: what opens it; ``auto`` goes by the file.
        settings: TensorRT's options for opening plans.

    Raises:
        InputError: there is no such file.
        OptionError: there is no backend of that name.
        MissingError: the backend does not work on this machine.
        ModelError: the file is damaged, or made for another version or device.
    """
    if not path.is_file():
        raise InputError(f"the engine '{path}' does not exist; give the path of a file.")
    return choose_backend(backend_of(path, backend), settings)[0].open(path)
