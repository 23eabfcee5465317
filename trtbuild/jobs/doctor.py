"""What this machine has of everything that trtbuild can use, what works, and how to repair the rest."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from trtbuild.enums import StrEnum
from trtbuild.errors import MissingError, OptionError
from trtbuild.json_codec import Document
from trtbuild.machine import is_importable, package_versions, system_name
from trtbuild.plugins import KINDS, Installed, load
from trtbuild.plugins import installed as installed_plugins
from trtbuild.runtime.cuda import PROVIDERS, cuda_driver
from trtbuild.runtime.tensorrt.versions import (
    RTX,
    TENSORRT,
    Product,
    installed,
    native_version,
)

__all__ = ["Ability", "Checkup", "Finding", "State", "abilities", "check_up", "examine"]

# Enough disk space for an engine, its caches and its manifest.
_WANTED_DISK = 2 * 2**30
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "llvmlite")


class State(StrEnum):
    """State of a part of the machine."""

    OK = "ok"
    ABSENT = "absent"
    """Missing; something optional will not work."""
    BROKEN = "broken"
    """Installed, but does not work."""


@dataclass(frozen=True)
class Finding:
    """One part: its state, what was found, and the command that repairs it (empty if nothing is wrong)."""

    part: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Ability:
    """Something that a user may want to do, whether it works here, and the reason."""

    what: str
    works: bool
    why: str


@dataclass(frozen=True)
class Checkup(Document):
    """This machine.

    Attributes:
        parts: its parts, and their state.
        abilities: what works with them.
        plug_ins: other packages' calibrators, judges, readers, passes and backends.
    """

    SCHEMA = "trtbuild.doctor"

    parts: tuple[Finding, ...]
    abilities: tuple[Ability, ...]
    plug_ins: tuple[Finding, ...]

    @property
    def is_broken(self) -> bool:
        """Whether something is installed and does not work."""
        return any(one.state is State.BROKEN for one in (*self.parts, *self.plug_ins))


def check_up() -> Checkup:
    """Examine this machine, and say what works. Never raises an error."""
    parts = examine()
    plug_ins = (_plug_in(one) for kind in KINDS for one in installed_plugins(kind))
    return Checkup(tuple(parts), tuple(abilities(parts)), tuple(plug_ins))


def examine(folder: Path | None = None) -> list[Finding]:
    """Examine everything. Never raises an error.

    Args:
        folder: folder for results; None for the working directory.
    """
    return [
        _python(),
        *(_package(name) for name in _PACKAGES),
        _onnxruntime(),
        _driver(),
        *_gpus(),
        *_tensorrt(TENSORRT, "tensorrt-cu13"),
        *_tensorrt(RTX, "tensorrt_rtx_cu13_libs", "tensorrt_rtx_cu13_bindings"),
        *(_provider(name) for name in PROVIDERS),
        _disk(folder or Path.cwd()),
    ]


def abilities(findings: list[Finding]) -> list[Ability]:
    """Say what will work here, from what was found."""
    from trtbuild.backends.tensorrt import TensorRTBackend  # imported here: it loads onnx

    reaches = [f.part for f in findings if f.part in PROVIDERS and f.state is State.OK]
    has_runtime = any(f.part == "ONNX Runtime" and f.state is State.OK for f in findings)
    opens = f"through {reaches[0]}" if reaches else "no package accesses the GPU"
    driver = cuda_driver()
    found = [Ability("portable INT8 engines for this CPU", has_runtime, "ONNX Runtime")]
    for product, engines in ((TENSORRT, "TensorRT engines"), (RTX, "plans for RTX GPUs")):
        builds = TensorRTBackend(product=product).availability()
        runs = builds.usable and bool(reaches) and not driver.problem
        why = driver.problem or opens
        found += [
            Ability(f"building {engines}", builds.usable, builds.detail),
            Ability(f"running {engines}", runs, why if builds.usable else builds.detail),
        ]
    return [*found, Ability("exporting PyTorch modules", is_importable("torch"), "torch")]


def _plug_in(one: Installed) -> Finding:
    part = f"{one.kind.what} {one.name}"
    found = f"{one.value}, of {one.package}" if one.package else one.value
    try:
        load(one.kind, one.name, OptionError)
    except OptionError as error:
        return Finding(part, State.BROKEN, str(error), "repair or uninstall the package")
    return Finding(part, State.OK, found)


def _python() -> Finding:
    found = f"{platform.python_version()} on {system_name()}, {sys.executable}"
    return Finding("Python", State.OK, found)


def _package(name: str) -> Finding:
    found = package_versions(name)
    if not found:
        return Finding(name, State.ABSENT, "not installed", "pip install trtbuild")
    return Finding(name, State.OK, found[name])


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding(
            "ONNX Runtime", State.BROKEN, str(error), "pip install --force-reinstall onnxruntime"
        )
    return Finding("ONNX Runtime", State.OK, ", ".join(onnxruntime.get_available_providers()))


def _driver() -> Finding:
    driver = cuda_driver()
    if driver.problem:
        state = State.BROKEN if driver.version else State.ABSENT
        return Finding("CUDA driver", state, driver.problem, driver.remedy)
    return Finding("CUDA driver", State.OK, f"CUDA {driver.version}")


def _gpus() -> list[Finding]:
    return [
        Finding(
            f"GPU {gpu.index}",
            State.OK,
            f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.0f} GiB",
        )
        for gpu in cuda_driver().gpus
    ]


def _tensorrt(product: Product, *packages: str) -> list[Finding]:
    """Examine one of NVIDIA's builders, which comes in `packages`: its module, and its library."""
    name = product.name
    try:
        found = installed(product)
    except MissingError as error:
        if not any(is_importable(module) for module in product.modules):
            return [Finding(name, State.ABSENT, "not installed", product.install)]
        return [Finding(name, State.BROKEN, str(error), product.install)]
    style = "implicit and explicit INT8" if found.has_implicit else "explicit INT8"
    bindings = Finding(name, State.OK, f"{found.version}: {style}")
    library = f"{name} library"
    number = native_version(found)
    if number is None:
        remedy = f"pip install {' '.join(packages)}"
        return [bindings, Finding(library, State.BROKEN, "does not load", remedy)]
    if number != found.number:
        text = f"{number}, but the Python package is {found.number}"
        exact = " ".join(f"{package}=={found.version}" for package in packages)
        remedy = f"pip install --force-reinstall {exact}"
        return [bindings, Finding(library, State.BROKEN, text, remedy)]
    return [bindings, Finding(library, State.OK, str(number))]


def _provider(name: str) -> Finding:
    module, command = PROVIDERS[name]
    if not is_importable(module):
        return Finding(name, State.ABSENT, "not installed", command)
    versions = package_versions(name, module.split(".")[0], "cuda-bindings").values()
    found = next(iter(versions), "installed")
    if found.endswith("+cpu"):
        text = f"{found}: exports modules, but reaches no GPU"
        return Finding(name, State.ABSENT, text, f"install a build of {name} for CUDA")
    return Finding(name, State.OK, found)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free in '{folder}'"
    if free < _WANTED_DISK:
        return Finding(
            "disk", State.BROKEN, text, "free some space, or choose another folder with -o"
        )
    return Finding("disk", State.OK, text)
