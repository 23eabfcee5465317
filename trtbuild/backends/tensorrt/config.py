"""Turns options into settings of TensorRT's builder configuration, and detects silent refusals.

Its setters return nothing in Python: some log an error and keep the old value, some keep it silently, some
take the value and warn that it has no effect. So each setting is read back, and the log since then is
checked.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.rtx import set_capabilities
from trtbuild.errors import MissingError, OptionError
from trtbuild.options.tensorrt import (
    HardwareCompatibility,
    Refit,
    RuntimePlatform,
    Tiling,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.backends.tensorrt.open_builder import OpenBuilder
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.logger import Log

__all__ = ["apply_options", "flag_names", "set_flag"]

_log = logging.getLogger(__name__)

_REFIT_FLAGS = {
    Refit.ALL: "REFIT",
    Refit.IDENTICAL: "REFIT_IDENTICAL",
    Refit.INDIVIDUAL: "REFIT_INDIVIDUAL",
}


def apply_options(builder: OpenBuilder, options: TensorRTOptions) -> None:
    """Set everything that the options ask for.

    Raises:
        OptionError: the installed version lacks an option, or refuses a value.
        MissingError: the DLA core does not exist.
    """
    for name in flag_names(options):
        set_flag(builder, name)
    if not options.tf32:
        set_flag(builder, "TF32", on=False)
    verbosity = builder.tensorrt.member("ProfilingVerbosity", options.verbosity.upper())
    _set_and_read_back(builder, "profiling_verbosity", verbosity)
    _set_numbers(builder, options)
    _set_pools(builder, options)
    _set_targets(builder, options)
    if builder.tensorrt.is_rtx:
        with _heeded(builder.log, "the compute capabilities"):
            set_capabilities(builder.tensorrt, builder.config, options)


def flag_names(options: TensorRTOptions) -> list[str]:
    """Return the builder flags that the options ask for; precision is set elsewhere."""
    wanted = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "EXCLUDE_LEAN_RUNTIME": options.exclude_lean_runtime,
        "SPARSE_WEIGHTS": options.sparse,
        "STRIP_PLAN": options.strip_plan,
        "WEIGHT_STREAMING": options.weight_streaming,
        "STRICT_NANS": options.strict_nans,
        "EDITABLE_TIMING_CACHE": options.editable_timing_cache,
        "ERROR_ON_TIMING_CACHE_MISS": options.lock is not None,
        "GPU_FALLBACK": options.dla is not None and options.gpu_fallback,
    }
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    if options.refit is not Refit.NO:
        names.append(_REFIT_FLAGS[options.refit])
    elif options.strip_plan:
        names.append(_REFIT_FLAGS[Refit.IDENTICAL])  # the same weights are put back later
    return names


def set_flag(builder: OpenBuilder, name: str, *, on: bool = True) -> None:
    """Set or clear a builder flag by its name.

    Raises:
        OptionError: the installed version has no such flag, or refuses it.
    """
    flag, config = builder.tensorrt.member("BuilderFlag", name), builder.config
    with _heeded(builder.log, f"the builder flag {name}") as mark:
        (config.set_flag if on else config.clear_flag)(flag)
        if config.get_flag(flag) != on:
            raise _refused(builder.log.since(mark), f"the builder flag {name} = {on}")


def _set_numbers(builder: OpenBuilder, options: TensorRTOptions) -> None:
    numbers = {
        "builder_optimization_level": options.optimization_level,
        "max_num_tactics": options.max_tactics,
        "avg_timing_iterations": options.avg_timing,
        "max_aux_streams": options.aux_streams,
        "l2_limit_for_tiling": options.l2_limit,
    }
    for name, value in numbers.items():
        if value is not None:
            _set_and_read_back(builder, name, value)


def _set_pools(builder: OpenBuilder, options: TensorRTOptions) -> None:
    pools = dict(options.pools)
    if options.workspace is not None:
        pools["WORKSPACE"] = options.workspace
    for name, nbytes in pools.items():
        pool = builder.tensorrt.member("MemoryPoolType", name)
        what = f"a limit of {nbytes} bytes for the memory pool {name}"
        with _heeded(builder.log, what) as mark:
            builder.config.set_memory_pool_limit(pool, nbytes)
            if builder.config.get_memory_pool_limit(pool) != nbytes:
                powers = ": DLA pools must be powers of two" if name.startswith("DLA") else ""
                raise _refused(builder.log.since(mark), what + powers)


def _set_targets(builder: OpenBuilder, options: TensorRTOptions) -> None:
    tensorrt = builder.tensorrt
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        level = tensorrt.member(
            "HardwareCompatibilityLevel", options.hardware_compatibility.upper()
        )
        _set_and_read_back(builder, "hardware_compatibility_level", level)
    if options.runtime_platform is not RuntimePlatform.SAME_AS_BUILD:
        platform = tensorrt.member("RuntimePlatform", options.runtime_platform.upper())
        _set_and_read_back(builder, "runtime_platform", platform)
    if options.tiling is not Tiling.NONE:
        level = tensorrt.member("TilingOptimizationLevel", options.tiling.upper())
        _set_and_read_back(builder, "tiling_optimization_level", level)
    if options.build_route is not None:
        if not hasattr(builder.config, "build_route"):
            raise OptionError(f"{tensorrt} has no build routes; TensorRT 11 has.")
        _set_and_read_back(builder, "build_route", options.build_route)
    if options.dla is not None:
        num_cores = builder.native.num_DLA_cores
        if options.dla >= num_cores:
            raise MissingError(f"there is no DLA core {options.dla}: this device has {num_cores}.")
        dla = tensorrt.member("DeviceType", "DLA")
        _set_and_read_back(builder, "default_device_type", dla)
        _set_and_read_back(builder, "DLA_core", options.dla)


def _set_and_read_back(builder: OpenBuilder, name: str, value: Any) -> None:
    """Set a property whose setter hides the library's answer, and check that the value was taken."""
    with _heeded(builder.log, f"{name} = {value}") as mark:
        setattr(builder.config, name, value)
        if getattr(builder.config, name) != value:
            raise _refused(builder.log.since(mark), f"{name} = {value}")


@contextlib.contextmanager
def _heeded(log: Log, what: str) -> Iterator[object]:
    """Raise an OptionError if TensorRT logs an error about a setting in the block, and pass on its warnings.

    The block gets the end of the log before the setting.
    """
    mark = log.mark
    yield mark
    said = log.since(mark)
    if said.errors:
        raise OptionError(f"TensorRT refuses {what}: {said.reason()}.")
    for text in said.texts("WARNING"):
        _log.warning("TensorRT on %s: %s", what, text)


def _refused(said: Log, what: str) -> OptionError:
    """The error for a setting that was not taken, with the first log line about it."""
    reasons = said.texts("INTERNAL_ERROR", "ERROR", "WARNING")[:1]
    return OptionError(
        f"TensorRT refuses {what}" + (f": {reasons[0].rstrip('.')}." if reasons else ".")
    )
