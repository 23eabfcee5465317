"""Options become settings of TensorRT's builder configuration; what it silently refuses is found out."""

from __future__ import annotations

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
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["apply_options", "flag_names"]

_REFIT_FLAGS = {
    Refit.ALL: "REFIT",
    Refit.IDENTICAL: "REFIT_IDENTICAL",
    Refit.INDIVIDUAL: "REFIT_INDIVIDUAL",
}


def apply_options(tensorrt: TensorRT, builder: Any, config: Any, options: TensorRTOptions) -> None:
    """Set everything that the options ask for.

    Raises:
        OptionError: the installed version lacks an option, or refuses a value.
        MissingError: a DLA core that is not there.
    """
    for name in flag_names(options):
        config.set_flag(tensorrt.member("BuilderFlag", name))
    if not options.tf32:
        config.clear_flag(tensorrt.member("BuilderFlag", "TF32"))
    config.profiling_verbosity = tensorrt.member("ProfilingVerbosity", options.verbosity.upper())
    _set_numbers(config, options)
    _set_pools(tensorrt, config, options)
    _set_targets(tensorrt, builder, config, options)
    if tensorrt.is_rtx:
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


def _set_numbers(config: Any, options: TensorRTOptions) -> None:
    numbers = {
        "builder_optimization_level": options.optimization_level,
        "max_num_tactics": options.max_tactics,
        "avg_timing_iterations": options.avg_timing,
        "max_aux_streams": options.aux_streams,
        "l2_limit_for_tiling": options.l2_limit,
    }
    for name, value in numbers.items():
        if value is not None:
            _set_and_read_back(config, name, value)


def _set_pools(tensorrt: TensorRT, config: Any, options: TensorRTOptions) -> None:
    pools = dict(options.pools)
    if options.workspace is not None:
        pools["WORKSPACE"] = options.workspace
    for name, nbytes in pools.items():
        pool = tensorrt.member("MemoryPoolType", name)
        config.set_memory_pool_limit(pool, nbytes)
        if config.get_memory_pool_limit(pool) != nbytes:
            raise OptionError(
                f"TensorRT refuses a limit of {nbytes} bytes for the memory pool {name}"
                + (": DLA pools must be powers of two." if name.startswith("DLA") else ".")
            )


def _set_targets(tensorrt: TensorRT, builder: Any, config: Any, options: TensorRTOptions) -> None:
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        level = tensorrt.member(
            "HardwareCompatibilityLevel", options.hardware_compatibility.upper()
        )
        _set_and_read_back(config, "hardware_compatibility_level", level)
    if options.runtime_platform is not RuntimePlatform.SAME_AS_BUILD:
        platform = tensorrt.member("RuntimePlatform", options.runtime_platform.upper())
        _set_and_read_back(config, "runtime_platform", platform)
    if options.tiling is not Tiling.NONE:
        level = tensorrt.member("TilingOptimizationLevel", options.tiling.upper())
        _set_and_read_back(config, "tiling_optimization_level", level)
    if options.build_route is not None:
        if not hasattr(config, "build_route"):
            raise OptionError(f"{tensorrt} has no build routes; 11 has.")
        _set_and_read_back(config, "build_route", options.build_route)
    if options.dla is not None:
        if options.dla >= builder.num_DLA_cores:
            raise MissingError(
                f"there is no DLA core {options.dla}: this device has {builder.num_DLA_cores}."
            )
        config.default_device_type = tensorrt.member("DeviceType", "DLA")
        config.DLA_core = options.dla


def _set_and_read_back(config: Any, name: str, value: Any) -> None:
    """Set a property whose setter drops what the library answers, and see whether it took."""
    setattr(config, name, value)
    if getattr(config, name) != value:
        raise OptionError(f"TensorRT refuses {name} = {value}.")
