"""What TensorRT 10 and 11 do differently; the only file that knows.

Enum values moved between 10 and 11 (``BuilderFlag.REFIT_IDENTICAL`` is 20 on one and 19 on the other), so
everything here goes by name. Calibrators, precision flags and weak typing are gone in 11.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import MissingError, ModelError, OptionError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["INSTALL", "TensorRT", "installed", "native_version"]

OLDEST, NEWEST = 10, 11
INSTALL = "pip install 'tensorrt-cu13>=10,<12' (or tensorrt-cu12 for a driver older than r580)"


@dataclass(frozen=True)
class TensorRT:
    """The installed TensorRT.

    Attributes:
        module: ``tensorrt``, imported.
        version: such as ``10.16.1.11``.
    """

    module: ModuleType
    version: str

    @property
    def major(self) -> int:
        """10 or 11."""
        return int(self.version.split(".")[0])

    @property
    def number(self) -> int:
        """The version as TensorRT itself writes it: 101601 for 10.16.1."""
        major, minor, patch = (int(part) for part in self.version.split(".")[:3])
        return major * 10000 + minor * 100 + patch

    @property
    def has_implicit(self) -> bool:
        """Whether calibrators and precision flags exist."""
        return hasattr(self.module, "IInt8EntropyCalibrator2")

    def member(self, enum: str, name: str) -> Any:
        """Return a member of an enum by name.

        Raises:
            OptionError: this version has no such member.
        """
        kind = getattr(self.module, enum, None)
        members = kind.__members__ if kind is not None else {}
        if name not in members:
            raise OptionError(
                f"TensorRT {self.version} has no {enum} {name}. {_why_gone(enum, name)}"
            )
        return members[name]

    def numpy_dtype(self, kind: Any, tensor: str) -> np.dtype[Any]:
        """Return NumPy's dtype for a member of ``DataType``.

        Args:
            kind: the member.
            tensor: name of the tensor that has it, for the message.

        Raises:
            ModelError: NumPy has none.
        """
        try:
            dtype: np.dtype[Any] = np.dtype(self.module.nptype(kind))
        except TypeError as error:
            raise ModelError(
                f"the tensor '{tensor}' is {kind.name}, which NumPy does not have. Build the engine with "
                "inputs and outputs in FP32 or FP16."
            ) from error
        return dtype

    def network_flags(self, *, strongly_typed: bool) -> int:
        """The bit mask for ``create_network``; TensorRT 11 types strongly without being told."""
        if not strongly_typed or not self.has_implicit:
            return 0
        return 1 << int(self.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))


def _why_gone(enum: str, name: str) -> str:
    precisions = {"FP16", "INT8", "BF16", "FP8", "INT4", "FP4"}
    if enum == "BuilderFlag" and name in precisions:
        return "Precision is a matter of the network there: use --quantization explicit."
    return "Leave the option out, or install a version that has it."


def installed() -> TensorRT:
    """Import TensorRT.

    Raises:
        MissingError: it is not installed, its library does not load, or its version is not 10 or 11.
    """
    try:
        module = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise MissingError(f"TensorRT is not installed. Install it: {INSTALL}.") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingError(
            f"TensorRT's Python package is here, and its library does not load: {error}. Install both "
            f"from one version: {INSTALL}."
        ) from error
    found = TensorRT(module, str(getattr(module, "__version__", "")))
    if not found.version[:1].isdigit():
        raise MissingError(
            f"the module 'tensorrt' that Python finds is not NVIDIA's ({_origin(module)}). Start from "
            f"another folder, or install NVIDIA's: {INSTALL}."
        )
    if not OLDEST <= found.major <= NEWEST:
        raise MissingError(
            f"TensorRT {found.version} is installed; trtbuild works with {OLDEST} and {NEWEST}. "
            f"Install one of them: {INSTALL}."
        )
    return found


def _origin(module: ModuleType) -> str:
    """Return where a module comes from; a folder without Python files has no file."""
    return str(
        getattr(module, "__file__", None) or next(iter(module.__path__), "of unknown origin")
    )


def native_version(major: int) -> int | None:
    """Ask the loaded library ``libnvinfer`` for its own version, such as 101601; None if it cannot tell."""
    name = f"nvinfer_{major}.dll" if sys.platform == "win32" else f"libnvinfer.so.{major}"
    try:
        return int(ctypes.CDLL(name).getInferLibVersion())
    except (OSError, AttributeError):
        return None
