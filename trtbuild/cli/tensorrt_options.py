"""The options of TensorRT builds, shared by the commands that build; only what was given is passed on."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from trtbuild.backends.tensorrt.options import (
    Calibrator,
    HardwareCompatibility,
    Quantization,
    RangeSource,
    Refit,
    RuntimePlatform,
    Tiling,
    Verbosity,
)
from trtbuild.runtime.cuda import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.enums import StrEnum

__all__ = ["ByteSize", "opening_options", "tensorrt_options"]

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
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic in newer click alone
    """A number of bytes with an optional binary unit: ``4GiB``, ``512M``, ``1048576``."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Return the number of bytes."""
        match = _SIZE.fullmatch(str(value))
        unit = match and _UNITS.get(match[2].upper())
        if not match or unit is None:
            self.fail(
                f"'{value}' is not a size; write 4GiB, 512MiB or a number of bytes.", param, ctx
            )
        return int(float(match[1]) * unit)


class _Pool(click.ParamType):  # type: ignore[type-arg]  # as above
    """A memory pool and its size: ``DLA_LOCAL_DRAM=1GiB``."""

    name = "pool=size"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        pool, equals, size = str(value).partition("=")
        if not equals:
            self.fail(f"'{value}' is not POOL=SIZE.", param, ctx)
        return pool.upper(), ByteSize().convert(size, param, ctx)


def _choice(kind: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([str(member) for member in kind])


# Flag, name of the option in `TensorRTOptions`, what click makes of it, help. In the order of --help.
_FILE = click.Path(path_type=Path, dir_okay=False)
_Option: TypeAlias = tuple[str, str, dict[str, Any], str]
_OPTIONS: list[_Option] = [
    ("--shape", "shapes", {"multiple": True, "metavar": "INPUT=MIN:OPT:MAX"},
     "Shapes of a dynamic input, such as images=1x3x224x224:8x3x224x224:32x3x224x224; repeat for profiles."),
    ("--quantization", "quantization", {"type": _choice(Quantization)},
     "auto: calibrator on TensorRT 10, Q/DQ on 11."),
    ("--fp16", "fp16", {"is_flag": True}, "What is not INT8 runs in FP16."),
    ("--ranges", "ranges", {"type": _choice(RangeSource)},
     "With a calibrator: TensorRT finds the ranges (device), or gets those found here (host)."),
    ("--trt-calibrator", "calibrator", {"type": _choice(Calibrator)}, "TensorRT 10's calibrator."),
    ("--cache", "cache", {"type": _FILE}, "Use this TensorRT calibration cache; do not calibrate."),
    ("--accept-foreign-cache", "accept_foreign_cache", {"is_flag": True},
     "Take the scales of --cache although another version or calibrator wrote it."),
    ("--workspace", "workspace", {"type": ByteSize()}, "Scratch memory for kernels, such as 4GiB."),
    ("--pool", "pools", {"type": _Pool(), "multiple": True}, "Limit of another memory pool."),
    ("--opt-level", "optimization_level", {"type": click.IntRange(0, 5)}, "0 builds fast, 5 runs fast."),
    ("--max-tactics", "max_tactics", {"type": click.IntRange(min=1)}, "Most kernels timed for a layer."),
    ("--avg-timing", "avg_timing", {"type": click.IntRange(min=1)}, "How often a kernel is timed."),
    ("--timing-cache", "timing_cache", {"type": _FILE}, "File of kernel timings; read and written."),
    ("--editable-timing-cache", "editable_timing_cache", {"is_flag": True},
     "Let entries of the timing cache be changed by hand."),
    ("--lock", "lock", {"metavar": "DIGEST"},
     "The timing cache must have this digest; take every kernel from it and fail on a miss."),
    ("--version-compatible", "version_compatible", {"is_flag": True},
     "The plan also runs on later versions."),
    ("--exclude-lean-runtime", "exclude_lean_runtime", {"is_flag": True},
     "Leave the older runtime out of a version compatible plan."),
    ("--hardware-compatibility", "hardware_compatibility", {"type": _choice(HardwareCompatibility)},
     "Other GPUs that can run the plan."),
    ("--runtime-platform", "runtime_platform", {"type": _choice(RuntimePlatform)},
     "Where the plan will run; one for Windows cannot be checked here."),
    ("--sparse", "sparse", {"is_flag": True}, "Try 2:4 sparse kernels."),
    ("--refit", "refit", {"type": _choice(Refit)}, "Which weights can be exchanged later."),
    ("--strip-plan", "strip_plan", {"is_flag": True}, "Leave the weights out of the plan."),
    ("--weight-streaming", "weight_streaming", {"is_flag": True}, "Keep weights in host memory."),
    ("--weight-budget", "weight_budget", {"type": ByteSize()}, "Device memory for streamed weights."),
    ("--dla", "dla", {"type": click.IntRange(min=0)}, "Run on this DLA core; the rest on the GPU."),
    ("--no-gpu-fallback", "gpu_fallback", {"flag_value": False, "type": bool, "default": None},
     "Fail where DLA cannot run a layer."),
    ("--aux-streams", "aux_streams", {"type": click.IntRange(min=0)}, "Most auxiliary streams."),
    ("--tiling", "tiling", {"type": _choice(Tiling)}, "How hard tiled kernels are looked for."),
    ("--l2-limit", "l2_limit", {"type": ByteSize()}, "L2 cache that tiling may use."),
    ("--profiling-verbosity", "verbosity", {"type": _choice(Verbosity)},
     "What the plan can tell of its layers; less than detailed cannot be checked."),
    ("--no-tf32", "tf32", {"flag_value": False, "type": bool, "default": None},
     "FP32 layers multiply in full FP32."),
    ("--strict-nans", "strict_nans", {"is_flag": True}, "NaNs behave as IEEE 754 says."),
    ("--build-route", "build_route", {"metavar": "TEXT"}, "TensorRT 11's build route."),
    ("--cuda", "cuda", {"type": click.Choice(["auto", *PROVIDERS])}, "Package that reaches the GPU."),
    ("--device", "device", {"type": click.IntRange(min=0)}, "Number of the GPU."),
    ("--allow-host-code", "allow_host_code", {"is_flag": True},
     "Open plans that hold host code, as version compatible ones do."),
    ("--cuda-graph", "cuda_graph", {"is_flag": True}, "Run the engine as a CUDA graph."),
]  # fmt: skip
_REPEATED = {"shapes": tuple, "pools": dict}


# What matters when a plan is opened, not when it is built.
_OPENING = ("weight_budget", "cuda", "device", "allow_host_code", "cuda_graph")


def tensorrt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add TensorRT's options; the command gets those that were given as a mapping named ``settings``."""
    return _adding(command, _OPTIONS)


def opening_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for opening a plan; the command gets them as `tensorrt_options` gives them."""
    return _adding(command, [option for option in _OPTIONS if option[1] in _OPENING])


def _adding(command: Callable[..., Any], chosen: list[_Option]) -> Callable[..., Any]:
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(f"trt_{name}") for _, name, _, _ in chosen}
        settings = {
            name: _REPEATED.get(name, lambda value: value)(value)
            for name, value in given.items()
            if _was_given(name, value)
        }
        return command(*args, settings=settings, **kwargs)

    options: Callable[..., Any] = wrapped
    for flag, name, how, text in reversed(chosen):
        options = click.option(flag, f"trt_{name}", help=f"[TensorRT] {text}", **how)(options)
    return options


def _was_given(name: str, value: Any) -> bool:
    """Whether an option stood on the command line; False is a value of the two that switch something off."""
    if value is False:
        return name in ("tf32", "gpu_fallback")
    return value is not None and value != ()
