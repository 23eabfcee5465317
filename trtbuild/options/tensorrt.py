"""What a user can ask of a TensorRT build, and of the session of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from trtbuild.enums import StrEnum
from trtbuild.errors import OptionError
from trtbuild.options.fields import option

__all__ = [
    "CUDA_PROVIDERS",
    "Calibrator",
    "HardwareCompatibility",
    "OpenOptions",
    "Quantization",
    "RangeSource",
    "Refit",
    "RuntimePlatform",
    "TensorRTOptions",
    "Tiling",
    "Verbosity",
    "byte_size",
]

CUDA_PROVIDERS = ("cuda-python", "pycuda", "torch")
"""What reaches the GPU, by preference; `trtbuild.runtime.cuda` opens devices with them."""

_UNITS = {
    "": 1,
    "B": 1,
    "K": 2**10,
    "KIB": 2**10,
    "M": 2**20,
    "MIB": 2**20,
    "G": 2**30,
    "GIB": 2**30,
}
_LARGEST_SIZE = 2**63 - 1
_CAPABILITY = re.compile(r"\d+\.\d")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def byte_size(text: str) -> int:
    """Return a number of bytes from ``4GiB``, ``512M`` or ``1048576``.

    Raises:
        ValueError: another form.
    """
    match = _SIZE.fullmatch(text)
    unit = match and _UNITS.get(match[2].upper())
    if not match or unit is None:
        raise ValueError(
            f"cannot be '{text}', which is not a size; write 4GiB, 512MiB or a number of bytes"
        )
    size = int(float(match[1]) * unit)
    if size > _LARGEST_SIZE:
        raise ValueError(f"cannot be '{text}': that is a size beyond 64 bits")
    return size


def _pool(text: str) -> tuple[str, int]:
    pool, equals, size = text.partition("=")
    if not equals:
        raise ValueError(f"cannot be '{text}'; write POOL=SIZE")
    return pool.upper(), byte_size(size)


def _compute_capability(text: str) -> str:
    if not _CAPABILITY.fullmatch(text):
        raise ValueError(f"cannot be '{text}'; write for example 8.9,12.0")
    return text


class Quantization(StrEnum):
    """How INT8 is asked for."""

    AUTO = "auto"
    """Implicit on TensorRT 10, explicit on 11 and for RTX."""
    IMPLICIT = "implicit"
    """Ranges from a calibrator; TensorRT chooses which layers run in INT8. TensorRT 10 alone."""
    EXPLICIT = "explicit"
    """Q/DQ nodes in the network; TensorRT does as they say."""


class RangeSource(StrEnum):
    """Where the ranges of an implicit build come from."""

    AUTO = "auto"
    """The device when there is data and the user named a method that TensorRT has, else the host."""
    DEVICE = "device"
    """TensorRT runs the network on the GPU over the calibration data."""
    HOST = "host"
    """The ranges that trtbuild found are handed over as a calibration cache."""


class Calibrator(StrEnum):
    """TensorRT 10's calibrators."""

    AUTO = "auto"
    """`MINMAX` when the ranges were chosen with minmax, else `ENTROPY_2`."""
    ENTROPY_2 = "entropy2"
    MINMAX = "minmax"
    ENTROPY = "entropy"
    LEGACY = "legacy"


class HardwareCompatibility(StrEnum):
    """Which GPUs besides this one can run the plan."""

    NONE = "none"
    AMPERE_PLUS = "ampere_plus"
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"


class Tiling(StrEnum):
    """How hard TensorRT looks for tiled kernels; FULL can multiply the build time."""

    NONE = "none"
    FAST = "fast"
    MODERATE = "moderate"
    FULL = "full"


class Verbosity(StrEnum):
    """How much of its layers a plan can tell about; without DETAILED the precision cannot be checked."""

    NONE = "none"
    LAYER_NAMES_ONLY = "layer_names_only"
    DETAILED = "detailed"


class Refit(StrEnum):
    """Whether weights can be exchanged after the build."""

    NO = "no"
    ALL = "all"
    """Any weights; blocks some INT8 fusions."""
    IDENTICAL = "identical"
    """Only the same weights, as a stripped plan needs; costs no speed."""
    INDIVIDUAL = "individual"
    """Only weights marked in the network."""


class RuntimePlatform(StrEnum):
    """Where the plan will run."""

    SAME_AS_BUILD = "same_as_build"
    WINDOWS_AMD64 = "windows_amd64"


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a plan."""

    cuda: str = option(
        "auto", "Python package that accesses the GPU.", choices=("auto", *CUDA_PROVIDERS)
    )
    device: int = option(0, "Number of the GPU.", low=0)
    allow_host_code: bool = option(
        False, "Open plans that hold host code, as version compatible ones do."
    )
    weight_budget: int | None = option(
        None, "Device memory for streamed weights.", unit="bytes", low=0, metavar="SIZE", parse=byte_size,
        when_absent="TensorRT's choice",
    )  # fmt: skip
    cuda_graph: bool = option(False, "Run the engine as a CUDA graph.")
    runtime_cache: Path | None = option(
        None, "File of the kernels that TensorRT for RTX compiles when a plan is opened; read before and "
        "written after.",
        metavar="FILE",
    )  # fmt: skip
    plugins: tuple[Path, ...] = option(
        (), "Shared library of TensorRT plugins, loaded before a network is parsed or a plan is opened; it "
        "runs with all your rights. Repeatable.",
        flag="--plugin", metavar="LIB",
    )  # fmt: skip


@dataclass(frozen=True)
class TensorRTOptions(OpenOptions):
    """Options of one build and of opening what it built; most defaults are TensorRT's own."""

    shapes: tuple[str, ...] = option(
        (), "Shapes of a dynamic input, such as images=1x3x224x224:8x3x224x224:32x3x224x224; the n-th for an "
        "input belongs to the n-th optimization profile. Repeatable.",
        flag="--shape", metavar="INPUT=MIN:OPT:MAX", essential=True,
    )  # fmt: skip
    shape_values: tuple[str, ...] = option(
        (), "Values of an input that holds a shape, such as size=1,8,8,8:1,8,32,32:1,8,64,64; the n-th for "
        "an input belongs to the n-th optimization profile. Repeatable.",
        flag="--shape-values", metavar="INPUT=MIN:OPT:MAX",
        when_absent="those in the calibration data",
    )  # fmt: skip
    quantization: Quantization = option(
        Quantization.AUTO, "How INT8 is requested; auto: calibrator on TensorRT 10, Q/DQ on 11."
    )
    ranges: RangeSource = option(
        RangeSource.AUTO,
        "With a calibrator: TensorRT finds the ranges (device), or gets those found here (host).",
    )
    calibrator: Calibrator = option(
        Calibrator.AUTO, "TensorRT 10's calibrator.", flag="--trt-calibrator"
    )
    cache: Path | None = option(
        None,
        "Build TensorRT 10's implicit INT8 with this calibration cache; the Q/DQ network beside it needs "
        "--data all the same.",
        metavar="FILE",
        essential=True,
    )
    accept_foreign_cache: bool = option(
        False, "Take the scales of --cache although another version or calibrator wrote it."
    )
    workspace: int | None = option(
        None, "Scratch memory for kernels, such as 4GiB.", unit="bytes", low=0, metavar="SIZE",
        parse=byte_size, when_absent="all device memory",
    )  # fmt: skip
    pools: Mapping[str, int] = option(
        {}, "Limit of another memory pool by TensorRT's name, such as DLA_LOCAL_DRAM=1GiB. Repeatable.",
        flag="--pool", unit="bytes", low=0, metavar="POOL=SIZE", parse=_pool,
        example='["DLA_LOCAL_DRAM=1GiB"]',
    )  # fmt: skip
    optimization_level: int | None = option(
        None, "From 0, the fastest build, which times no kernels, to 5, the fastest engine.",
        flag="--opt-level", low=0, high=5,
        when_absent="TensorRT's 3",
    )  # fmt: skip
    max_tactics: int | None = option(
        None, "Maximum number of kernels timed for a layer.", low=1, when_absent="no limit"
    )
    avg_timing: int | None = option(
        None, "How often each kernel is timed.", low=1, when_absent="TensorRT's choice"
    )
    timing_cache: Path | None = option(
        None,
        "File of kernel timings, read before and written after the build.",
        metavar="FILE",
        essential=True,
    )
    editable_timing_cache: bool = option(
        False, "Let entries of the timing cache be changed by hand."
    )
    lock: str | None = option(
        None, "The timing cache must have this digest (sha256:...); take every kernel from it, fail on a "
        "miss and do not write it.",
        metavar="DIGEST",
    )  # fmt: skip
    version_compatible: bool = option(
        False, "The plan also runs on later versions; it holds host code."
    )
    exclude_lean_runtime: bool = option(
        False, "Leave the lean runtime out of a version compatible plan."
    )
    hardware_compatibility: HardwareCompatibility = option(
        HardwareCompatibility.NONE, "Other GPUs that can run the plan."
    )
    runtime_platform: RuntimePlatform = option(
        RuntimePlatform.SAME_AS_BUILD,
        "Where the plan will run; one for Windows cannot be checked here.",
    )
    sparse: bool = option(False, "Try 2:4 sparse kernels.")
    refit: Refit = option(Refit.NO, "Which weights can be refitted later.")
    strip_plan: bool = option(
        False, "Leave the weights out of the plan; they are refitted from the network before use."
    )
    weight_streaming: bool = option(False, "Keep weights in host memory and stream them.")
    dla: int | None = option(
        None, "Run on this DLA core; the rest on the GPU.", low=0, when_absent="the GPU"
    )
    gpu_fallback: bool = option(
        True, "Layers that DLA cannot run go to the GPU; otherwise they fail the build."
    )
    aux_streams: int | None = option(
        None,
        "Maximum number of auxiliary streams; 0 for one stream.",
        low=0,
        when_absent="TensorRT's choice",
    )
    tiling: Tiling = option(
        Tiling.NONE,
        "How thoroughly tiled kernels are searched for; full can multiply the build time.",
    )
    l2_limit: int | None = option(
        None, "L2 cache that tiling may use.", unit="bytes", low=0, metavar="SIZE", parse=byte_size,
        when_absent="TensorRT's choice",
    )  # fmt: skip
    verbosity: Verbosity = option(
        Verbosity.DETAILED,
        "What the plan records about its layers; below detailed, their precisions cannot be checked.",
        flag="--profiling-verbosity",
    )
    tf32: bool = option(
        True, "FP32 layers multiply in TF32, with 10 bits of mantissa; otherwise in full FP32."
    )
    strict_nans: bool = option(False, "NaNs behave as IEEE 754 says.")
    build_route: str | None = option(None, "TensorRT 11's build route.", metavar="TEXT")
    compute_capabilities: tuple[str, ...] = option(
        (), "GPUs that a plan of TensorRT for RTX is for, such as 8.9,12.0; 7.5 needs --fp16.",
        flag="--compute-capability", metavar="X.Y[,X.Y...]", separator=",", parse=_compute_capability,
        when_absent="all from 8.0 on", essential=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check()

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the options that do not have their default, sorted."""
        plain = type(self)()
        names = (field.name for field in fields(self))
        return tuple(sorted(n for n in names if getattr(self, n) != getattr(plain, n)))

    def check(self) -> None:
        """Check what does not depend on the installed version.

        Raises:
            OptionError: options that contradict each other.
        """
        level = self.optimization_level
        if level is not None and not 0 <= level <= 5:
            raise OptionError(f"the optimization level is {level}; TensorRT takes 0 to 5.")
        if self.lock and not self.timing_cache:
            raise OptionError("--lock pins the file of --timing-cache; name that file too.")
        if level == 0 and self.timing_cache:
            raise OptionError(
                "--opt-level 0 times nothing, so --timing-cache has no effect. Leave one out."
            )
        if self.exclude_lean_runtime and not self.version_compatible:
            raise OptionError("--exclude-lean-runtime needs --version-compatible.")
        if self.strip_plan and self.refit not in (Refit.NO, Refit.IDENTICAL, Refit.ALL):
            raise OptionError("--strip-plan needs --refit identical or all.")
        if self.dla is not None and self.quantization is Quantization.EXPLICIT:
            raise OptionError(
                "DLA supports only implicit INT8. Use --quantization implicit, or turn a Q/DQ network "
                "into a plain one with its cache: trtbuild cache convert."
            )
