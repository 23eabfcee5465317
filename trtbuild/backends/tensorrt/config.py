"""Options become settings of TensorRT's builder configuration; what it silently refuses is found out.

Its setters answer nothing in Python: some log an error and keep the old value, some keep it without a word,
some take the value and warn that it does nothing. So each setting is read back, and what was said meanwhile
is looked at.
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

    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["apply_options", "flag_names", "set_flag"]

_log = logging.getLogger(__name__)

_REFIT_FLAGS = {
    Refit.ALL: "REFIT",
    Refit.IDENTICAL: "REFIT_IDENTICAL",
    Refit.INDIVIDUAL: "REFIT_INDIVIDUAL",
}


def apply_options(
    tensorrt: TensorRT, builder: Any, config: Any, options: TensorRTOptions, log: Log
) -> None:
    """Set everything that the options ask for.

    Raises:
        OptionError: the installed version lacks an option, or refuses a value.
        MissingError: a DLA core that is not there.
    """
    for name in flag_names(options):
        set_flag(tensorrt, config, name, log)
    if not options.tf32:
        set_flag(tensorrt, config, "TF32", log, on=False)
    verbosity = tensorrt.member("ProfilingVerbosity", options.verbosity.upper())
    _set_and_read_back(config, "profiling_verbosity", verbosity, log)
    _set_numbers(config, options, log)
    _set_pools(tensorrt, config, options, log)
    _set_targets(tensorrt, builder, config, options, log)
    if tensorrt.is_rtx:
        with _heeded(log, "the compute capabilities"):
            set_capabilities(tensorrt, config, options)


def flag_names(options: TensorRTOptions) -> list[str]:
    """Name the builder flags that the options ask for; precision is set elsewhere."""
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
        names.append(_REFIT_FLAGS[Refit.IDENTICAL])  # the weights come back as they were
    return names


def set_flag(tensorrt: TensorRT, config: Any, name: str, log: Log, *, on: bool = True) -> None:
    """Set or clear a builder flag by its name.

    Raises:
        OptionError: the installed version has no such flag, or refuses it.
    """
    flag = tensorrt.member("BuilderFlag", name)
    with _heeded(log, f"the builder flag {name}") as mark:
        (config.set_flag if on else config.clear_flag)(flag)
        if config.get_flag(flag) != on:
            raise _refused(log.since(mark), f"the builder flag {name} = {on}")


def _set_numbers(config: Any, options: TensorRTOptions, log: Log) -> None:
    numbers = {
        "builder_optimization_level": options.optimization_level,
        "max_num_tactics": options.max_tactics,
        "avg_timing_iterations": options.avg_timing,
        "max_aux_streams": options.aux_streams,
        "l2_limit_for_tiling": options.l2_limit,
    }
    for name, value in numbers.items():
        if value is not None:
            _set_and_read_back(config, name, value, log)


def _set_pools(tensorrt: TensorRT, config: Any, options: TensorRTOptions, log: Log) -> None:
    pools = dict(options.pools)
    if options.workspace is not None:
        pools["WORKSPACE"] = options.workspace
    for name, nbytes in pools.items():
        pool = tensorrt.member("MemoryPoolType", name)
        what = f"a limit of {nbytes} bytes for the memory pool {name}"
        with _heeded(log, what) as mark:
            config.set_memory_pool_limit(pool, nbytes)
            if config.get_memory_pool_limit(pool) != nbytes:
                powers = ": DLA pools must be powers of two" if name.startswith("DLA") else ""
                raise _refused(log.since(mark), what + powers)


def _set_targets(
    tensorrt: TensorRT, builder: Any, config: Any, options: TensorRTOptions, log: Log
) -> None:
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        level = tensorrt.member(
            "HardwareCompatibilityLevel", options.hardware_compatibility.upper()
        )
        _set_and_read_back(config, "hardware_compatibility_level", level, log)
    if options.runtime_platform is not RuntimePlatform.SAME_AS_BUILD:
        platform = tensorrt.member("RuntimePlatform", options.runtime_platform.upper())
        _set_and_read_back(config, "runtime_platform", platform, log)
    if options.tiling is not Tiling.NONE:
        level = tensorrt.member("TilingOptimizationLevel", options.tiling.upper())
        _set_and_read_back(config, "tiling_optimization_level", level, log)
    if options.build_route is not None:
        if not hasattr(config, "build_route"):
            raise OptionError(f"{tensorrt} has no build routes; 11 has.")
        _set_and_read_back(config, "build_route", options.build_route, log)
    if options.dla is not None:
        if options.dla >= builder.num_DLA_cores:
            raise MissingError(
                f"there is no DLA core {options.dla}: this device has {builder.num_DLA_cores}."
            )
        dla = tensorrt.member("DeviceType", "DLA")
        _set_and_read_back(config, "default_device_type", dla, log)
        _set_and_read_back(config, "DLA_core", options.dla, log)


def _set_and_read_back(config: Any, name: str, value: Any, log: Log) -> None:
    """Set a property whose setter drops what the library answers, and see whether it took."""
    with _heeded(log, f"{name} = {value}") as mark:
        setattr(config, name, value)
        if getattr(config, name) != value:
            raise _refused(log.since(mark), f"{name} = {value}")


@contextlib.contextmanager
def _heeded(log: Log, what: str) -> Iterator[object]:
    """Raise what TensorRT says against a setting in the block as an OptionError, and pass on its warnings.

    The block gets where the log ended before.
    """
    mark = log.mark
    yield mark
    said = log.since(mark)
    if said.errors:
        raise OptionError(f"TensorRT refuses {what}: {said.reason()}.")
    for text in said.texts("WARNING"):
        _log.warning("TensorRT on %s: %s", what, text)


def _refused(said: Log, what: str) -> OptionError:
    """The error of a setting that did not take, with the first thing that was said about it."""
    reasons = said.texts("INTERNAL_ERROR", "ERROR", "WARNING")[:1]
    return OptionError(
        f"TensorRT refuses {what}" + (f": {reasons[0].rstrip('.')}." if reasons else ".")
    )
