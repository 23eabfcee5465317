"""What a user can ask of a TensorRT build, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.enums import StrEnum
from trtbuild.errors import OptionError
from trtbuild.runtime.tensorrt.options import OpenOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Calibrator",
    "HardwareCompatibility",
    "Quantization",
    "RangeSource",
    "Refit",
    "RuntimePlatform",
    "TensorRTOptions",
    "Tiling",
    "Verbosity",
]


class Quantization(StrEnum):
    """How INT8 is asked for."""

    AUTO = "auto"
    """Implicit on TensorRT 10, explicit on 11."""
    IMPLICIT = "implicit"
    """Ranges from a calibrator; TensorRT chooses which layers run in INT8. TensorRT 10 alone."""
    EXPLICIT = "explicit"
    """Q/DQ nodes in the network; TensorRT does as they say."""


class RangeSource(StrEnum):
    """Where the ranges of an implicit build come from."""

    AUTO = "auto"
    """The device when there is calibration data and TensorRT has the method, else the host."""
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
class TensorRTOptions(OpenOptions):
    """Options of one build and of opening its plan; the defaults are TensorRT's own unless said otherwise.

    Attributes:
        quantization: implicit or explicit INT8.
        fp16: run what is not INT8 in FP16.
        shapes: texts ``input=min:opt:max`` with shapes such as ``1x3x224x224``; the n-th text for an
            input belongs to the n-th optimization profile.
        workspace: bytes of scratch memory that kernels may use; None for all device memory.
        pools: further memory pools by TensorRT's name, in bytes, such as ``DLA_LOCAL_DRAM``.
        optimization_level: 0 (fast build, nothing is timed) to 5; None for TensorRT's 3.
        max_tactics: most kernels that are timed for a layer; None for no limit.
        avg_timing: how often each is timed; None for TensorRT's choice.
        timing_cache: file of kernel timings, read before and written after the build.
        editable_timing_cache: let entries of the timing cache be changed by hand.
        lock: digest (``sha256:...``) that the timing cache must have; the build then takes every kernel
            from it, fails on a miss and does not write it.
        version_compatible: the plan also runs on later versions; it holds host code.
        exclude_lean_runtime: leave the runtime for older versions out of a version compatible plan.
        hardware_compatibility: see `HardwareCompatibility`.
        sparse: try 2:4 sparse kernels.
        refit: see `Refit`.
        strip_plan: leave the weights out; they are refitted from the network before use.
        weight_streaming: keep weights in host memory and stream them.
        dla: number of the DLA core; None for the GPU.
        gpu_fallback: layers that DLA cannot run go to the GPU.
        aux_streams: most auxiliary streams; 0 for one stream; None for TensorRT's choice.
        tiling: see `Tiling`.
        l2_limit: bytes of L2 cache that tiling may use; None for TensorRT's choice.
        verbosity: see `Verbosity`. DETAILED here, which costs a few kilobytes.
        tf32: let FP32 layers multiply with 10 bits of mantissa.
        strict_nans: NaNs behave as IEEE 754 says.
        build_route: TensorRT 11's free-form knobs.
        runtime_platform: see `RuntimePlatform`.
        calibrator: see `Calibrator`.
        ranges: see `RangeSource`.
        cache: TensorRT calibration cache to use instead of calibrating.
        accept_foreign_cache: use `cache` although another version or calibrator wrote it.
    """

    quantization: Quantization = Quantization.AUTO
    fp16: bool = False
    shapes: tuple[str, ...] = ()
    workspace: int | None = None
    pools: Mapping[str, int] = field(default_factory=dict)
    optimization_level: int | None = None
    max_tactics: int | None = None
    avg_timing: int | None = None
    timing_cache: Path | None = None
    editable_timing_cache: bool = False
    lock: str | None = None
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    sparse: bool = False
    refit: Refit = Refit.NO
    strip_plan: bool = False
    weight_streaming: bool = False
    dla: int | None = None
    gpu_fallback: bool = True
    aux_streams: int | None = None
    tiling: Tiling = Tiling.NONE
    l2_limit: int | None = None
    verbosity: Verbosity = Verbosity.DETAILED
    tf32: bool = True
    strict_nans: bool = False
    build_route: str | None = None
    runtime_platform: RuntimePlatform = RuntimePlatform.SAME_AS_BUILD
    calibrator: Calibrator = Calibrator.AUTO
    ranges: RangeSource = RangeSource.AUTO
    cache: Path | None = None
    accept_foreign_cache: bool = False

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TensorRTOptions:
        """Make options of plain values, such as a recipe holds.

        Raises:
            OptionError: an unknown name, or a value that its option does not take.
        """
        known = {entry.name: entry for entry in fields(cls)}
        values = {}
        for name, value in settings.items():
            if name not in known:
                raise OptionError(f"TensorRT has no option '{name}'; known are {', '.join(known)}.")
            values[name] = _converted(name, value)
        options = cls(**values)
        options.check()
        return options

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
                "--opt-level 0 times nothing, so --timing-cache is without effect. Leave one out."
            )
        if self.exclude_lean_runtime and not self.version_compatible:
            raise OptionError(
                "--exclude-lean-runtime only means something with --version-compatible."
            )
        if self.strip_plan and self.refit not in (Refit.NO, Refit.IDENTICAL, Refit.ALL):
            raise OptionError("--strip-plan goes with --refit identical or all.")
        if self.dla is not None and self.quantization is Quantization.EXPLICIT:
            raise OptionError(
                "DLA understands implicit INT8 alone. Use --quantization implicit, or turn a Q/DQ network "
                "into a plain one with its cache: trtbuild cache convert."
            )


_ENUMS: dict[str, type[StrEnum]] = {
    "quantization": Quantization,
    "hardware_compatibility": HardwareCompatibility,
    "refit": Refit,
    "tiling": Tiling,
    "verbosity": Verbosity,
    "runtime_platform": RuntimePlatform,
    "calibrator": Calibrator,
    "ranges": RangeSource,
}


def _converted(name: str, value: Any) -> Any:
    if name in _ENUMS:
        allowed = [str(member) for member in _ENUMS[name]]
        if value not in allowed:
            raise OptionError(
                f"'{value}' is not a value of '{name}'; it takes {', '.join(allowed)}."
            )
        return _ENUMS[name](value)
    if name in ("timing_cache", "cache") and value is not None:
        return Path(value)
    return tuple(value) if name == "shapes" else value
