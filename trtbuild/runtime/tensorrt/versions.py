"""The differences between TensorRT 10, 11 and TensorRT for RTX; only this file knows them.

Both products have the same Python interface except for a few names, so they are one backend in two flavours.
TensorRT for RTX is strongly typed, needs no GPU to build, and numbers its versions from 1.

Enum values differ between 10 and 11 (``BuilderFlag.REFIT_IDENTICAL`` is 20 in one and 19 in the other), so
everything here goes by name. Calibrators, precision flags and weak typing are gone in 11.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import MissingError, ModelError, OptionError
from trtbuild.runtime.manifest_beside import RTX_SUFFIX

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

__all__ = [
    "RTX",
    "TENSORRT",
    "TURING",
    "Product",
    "TensorRT",
    "check_product",
    "installed",
    "native_version",
    "product_of",
]

TURING = "7.5"
"""The compute capability that TensorRT for RTX builds for only on request, and not completely in FP32."""


@dataclass(frozen=True)
class Product:
    """One of NVIDIA's builders.

    Attributes:
        name: NVIDIA's name of it.
        backend: name of the backend that builds with it.
        plan_suffix: ending of its plans' file names.
        modules: possible names of its Python module, the usual one first.
        library: its native library; ``{major}`` stands for the first number of the version.
        windows_library: the same on Windows; ``{minor}`` stands for the second number.
        majors: the oldest and the newest major version that trtbuild works with.
        install: the command that installs it.
    """

    name: str
    backend: str
    plan_suffix: str
    modules: tuple[str, ...]
    library: str
    windows_library: str
    majors: tuple[int, int]
    install: str


TENSORRT = Product(
    "TensorRT",
    "tensorrt",
    ".plan",
    ("tensorrt",),
    "libnvinfer.so.{major}",
    "nvinfer_{major}.dll",
    (10, 11),
    "pip install 'tensorrt-cu13>=10,<12' (or tensorrt-cu12 for a driver older than r580)",
)
RTX = Product(
    "TensorRT for RTX",
    "tensorrt-rtx",
    RTX_SUFFIX,
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "libtensorrt_rtx.so.{major}",
    "tensorrt_rtx_{major}_{minor}.dll",
    (1, 1),
    "pip install 'trtbuild[rtx]' (or tensorrt_rtx_cu12_libs and tensorrt_rtx_cu12_bindings for a driver "
    "older than r580)",
)


# The bytes at the beginning of a plan, and the position of its builder's version: one byte for each number.
# Source: NVIDIA's ``sampleEngines.cpp`` for TensorRT. Plans of TensorRT for RTX 1.7.1.116 have the second tag
# and the same position.
_PLAN_TAGS = (b"ftrt", b"vtrt")
_MAJOR_AT = 24


def product_of(plan: Path) -> Product:
    """Return the product that a plan is for: by the version in the plan, else by the file name."""
    named = RTX if plan.name.endswith(RTX.plan_suffix) else TENSORRT
    return _product_within(plan) or named


def check_product(plan: Path, product: Product) -> None:
    """Check that a plan is not of another product than the one that is to open it.

    Raises:
        OptionError: the version in the plan is another product's.
    """
    found = _product_within(plan)
    if found is not None and found is not product:
        raise OptionError(
            f"'{plan}' is a plan of {found.name}, which only {found.name} opens: leave --backend "
            f"{product.backend} out, or give --backend {found.backend}."
        )


def _product_within(plan: Path) -> Product | None:
    """The product by the version in a plan; None if there is none."""
    head = b""
    with contextlib.suppress(OSError), plan.open("rb") as file:  # opening it reports the error
        head = file.read(_MAJOR_AT + 1)
    if not (head.startswith(_PLAN_TAGS) and len(head) > _MAJOR_AT):
        return None
    return RTX if head[_MAJOR_AT] <= RTX.majors[1] else TENSORRT


@dataclass(frozen=True)
class TensorRT:
    """The installed TensorRT.

    Attributes:
        module: ``tensorrt`` or ``tensorrt_rtx``, imported.
        version: such as ``10.16.1.11``.
        product: which of the two it is.
    """

    module: ModuleType
    version: str
    product: Product = TENSORRT

    def __str__(self) -> str:
        return f"{self.product.name} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return self.product is RTX

    @property
    def major(self) -> int:
        """10 or 11; 1 for TensorRT for RTX."""
        return int(self.version.split(".")[0])

    @property
    def number(self) -> int:
        """The version as TensorRT itself writes it: 101601 for 10.16.1, 10701 for RTX 1.7.1."""
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
            raise OptionError(f"{self} has no {enum} {name}. {_why_gone(enum, name)}")
        return members[name]

    def numpy_dtype(self, kind: Any, tensor: str) -> np.dtype[Any]:
        """Return NumPy's dtype for a member of ``DataType``.

        Args:
            kind: the member.
            tensor: name of the tensor that has it, for the message.

        Raises:
            ModelError: NumPy has no such dtype.
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
        """Return the bit mask for ``create_network``; TensorRT 11 is always strongly typed."""
        if not strongly_typed or not self.has_implicit:
            return 0
        return 1 << int(self.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))


def _why_gone(enum: str, name: str) -> str:
    precisions = {"FP16", "INT8", "BF16", "FP8", "INT4", "FP4"}
    if enum == "BuilderFlag" and name in precisions:
        return "There the network sets the precision: use --quantization explicit."
    return "Leave the option out, or install a version that has it."


def installed(product: Product = TENSORRT) -> TensorRT:
    """Import TensorRT, or TensorRT for RTX.

    Raises:
        MissingError: it is not installed, its library does not load, or its version is not supported.
    """
    module = _imported(product)
    found = TensorRT(module, str(getattr(module, "__version__", "")), product)
    if not found.version[:1].isdigit():
        raise MissingError(
            f"the module '{module.__name__}' that Python finds is not NVIDIA's ({_origin(module)}). Start "
            f"from another folder, or install NVIDIA's: {product.install}."
        )
    oldest, newest = product.majors
    if not oldest <= found.major <= newest:
        works = f"{oldest} and {newest}" if oldest != newest else f"{oldest}.x"
        raise MissingError(
            f"{found} is installed; trtbuild works with {works}. Install one of them: {product.install}."
        )
    return found


def _imported(product: Product) -> ModuleType:
    """Return the first module of `product` that is installed; a mere folder of that name only if none is."""
    absent: ModuleNotFoundError | None = None
    folder: ModuleType | None = None
    for name in product.modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            absent = error
            continue
        except (ImportError, OSError, RuntimeError) as error:
            raise MissingError(
                f"{product.name}'s Python package is installed, but its library does not load: {error}. "
                "Install "
                f"both from one version: {product.install}."
            ) from error
        if module.__spec__ is None or module.__spec__.origin is not None:
            return module
        folder = folder or module
    if folder is not None:
        return folder
    raise MissingError(
        f"{product.name} is not installed. Install it: {product.install}."
    ) from absent


def _origin(module: ModuleType) -> str:
    """Return where a module comes from; a folder without Python files has no ``__file__``."""
    return str(
        getattr(module, "__file__", None) or next(iter(module.__path__), "of unknown origin")
    )


def native_version(tensorrt: TensorRT) -> int | None:
    """Ask the loaded library for its own version, such as 101601; None if it does not give one."""
    product = tensorrt.product
    pattern = product.windows_library if sys.platform == "win32" else product.library
    major, minor = tensorrt.version.split(".")[:2]
    try:
        return int(ctypes.CDLL(pattern.format(major=major, minor=minor)).getInferLibVersion())
    except (OSError, AttributeError):
        return None
