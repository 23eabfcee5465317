"""Configuration of the stand-in: profiles, settings with their checks, the timing cache."""

from __future__ import annotations

import ctypes
import itertools
import json
from typing import TYPE_CHECKING, Any

from tests.tensorrt_stub.native import (
    Dims,
    Native,
    boolean,
    i32,
    i64,
    ptr,
    size,
    text,
    u32,
    virtual,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WORKSPACE, DLA_SRAM, DLA_LOCAL, DLA_GLOBAL, TACTIC_DRAM, TACTIC_SHARED = range(6)
DLA_POOLS = (DLA_SRAM, DLA_LOCAL, DLA_GLOBAL)
DEVICE_MEMORY = 1 << 36
POOLS = {
    WORKSPACE: DEVICE_MEMORY,
    DLA_LOCAL: 1 << 30,
    DLA_GLOBAL: 1 << 29,
    TACTIC_DRAM: DEVICE_MEMORY,
    TACTIC_SHARED: 1 << 30,
}
SMALLEST_POOL = 4096
LARGEST_EXTENT = 2**31 - 1
FLAGS = {
    "FP16": (0, None),
    "INT8": (1, None),
    "VERSION_COMPATIBLE": (13, 12),
    "EXCLUDE_LEAN_RUNTIME": (14, 13),
    "ERROR_ON_TIMING_CACHE_MISS": (16, 15),
    "DISABLE_TIMING_CACHE": (5, 5),
}


class HostMemory(Native):
    interface = "IHostMemory"

    def __init__(self, world: Any, content: bytes) -> None:
        super().__init__(world)
        self.content = content
        self.at = Native.keep(content)

    @virtual(ptr)
    def data(self) -> int:
        return self.at

    @virtual(size)
    def nbytes(self) -> int:
        return len(self.content)

    @virtual(i32)
    def dtype(self) -> int:
        return 2


class Profile(Native):
    interface = "IOptimizationProfile"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.shapes: dict[str, list[tuple[int, ...] | None]] = {}
        self.values: dict[str, list[tuple[int, ...] | None]] = {}

    @virtual(boolean, text, i32, ptr)
    def set_shape(self, name: str, which: int, dims: int) -> bool:
        # Selector 0 is min, 1 is opt, 2 is max. Their order is checked when the profile is added.
        shape = Dims.at(dims)
        if not all(0 <= extent <= LARGEST_EXTENT for extent in shape):
            self.world.log("ERROR", "Parameter check failed, condition: x >= 0")
            return False
        self.shapes.setdefault(name, [None] * 3)[which] = shape
        return True

    @virtual(Dims, text, i32)
    def get_shape(self, name: str, which: int) -> tuple[int, ...] | None:
        if name not in self.shapes:
            self.world.log("ERROR", f"Cannot get dimensions for input: {name}.")
            return None
        return self.shapes[name][which]

    @virtual(boolean)
    def is_valid(self) -> bool:
        for name, ranges in self.shapes.items():
            if not _in_order(ranges):
                self.world.log(
                    "ERROR",
                    f"Invalid optimization profiles for input tensors {name}, please ensure that the "
                    "optimization profiles satisfy MIN<=OPT<=MAX.",
                )
                return False
        return all(None not in values for values in self.values.values())

    @virtual(boolean, text, i32, ptr, i32)
    def set_shape_input(self, name: str, which: int, values: int, count: int) -> bool:
        """Accept values for any input; the build finds that an input holds no shape."""
        known = self.values.setdefault(name, [None] * 3) if count else []
        given = tuple((i64 * count).from_address(values)) if count else ()
        wanted = [*known[:which], given, *known[which + 1 :]]
        if not count or not _in_order([one for one in wanted if one is not None]):
            self.world.log("ERROR", f"Parameter check failed, condition: values of {name} in order")
            return False
        known[which] = given
        return True

    @virtual(i32, text)
    def num_shape_values(self, name: str) -> int:
        return len(self.values[name][0] or ()) if name in self.values else -1

    @virtual(ptr, text, i32)
    def get_shape_input(self, name: str, which: int) -> bytes | None:
        values = self.values.get(name, [None] * 3)[which]
        return None if values is None else bytes((i64 * len(values))(*values))


def _in_order(ranges: list[tuple[int, ...] | None]) -> bool:
    """Whether min, opt and max are set, of one length, and in ascending order."""
    return all(
        low is not None
        and high is not None
        and len(low) == len(high)
        and all(x <= y for x, y in zip(low, high, strict=True))
        for low, high in itertools.pairwise(ranges)
    )


class TimingCache(Native):
    interface = "ITimingCache"

    def __init__(self, world: Any, entries: dict[str, float]) -> None:
        super().__init__(world)
        self.entries = entries

    @virtual(ptr)
    def serialize(self) -> HostMemory:
        content = {"version": self.world.number, "entries": dict(sorted(self.entries.items()))}
        return HostMemory(self.world, b"TIMING" + json.dumps(content).encode())

    @virtual(boolean, ptr, boolean)
    def combine(self, other: int, ignore_mismatch: bool) -> bool:
        self.entries |= Native.of(other).entries
        return True

    @virtual(boolean)
    def reset(self) -> bool:
        self.entries.clear()
        return True


def _stored(kind: Any, field: str) -> tuple[Any, Any]:
    """Make a setter and a getter of a plain setting."""

    @virtual(None, kind)
    def setter(self: Any, value: Any) -> None:
        self.settings[field] = value

    @virtual(kind)
    def getter(self: Any) -> Any:
        return self.settings.get(field, 0)

    return setter, getter


def _bounded(field: str, take: Callable[[int], tuple[int | None, str, str]]) -> tuple[Any, Any]:
    """The same for a checked number: the new value, None to keep the old one, and a line of the log."""
    _, getter = _stored(i32, field)

    @virtual(None, i32)
    def setter(self: Any, value: int) -> None:
        taken, severity, said = take(value)
        if said:
            self.world.log(severity, said)
        if taken is not None:
            self.settings[field] = taken

    return setter, getter


def _level(value: int) -> tuple[int | None, str, str]:
    said = "" if value >= 0 else "Parameter check failed, condition: level >= 0."
    return (min(value, 5) if value >= 0 else None), "ERROR", said


def _tactics(value: int) -> tuple[int | None, str, str]:
    if value < -1:
        return None, "ERROR", f"Invalid number of tactics: {value}."
    said = "" if value else "IBuilderConfig::setMaxNbTactics(0) has no effect."
    return (value or None), "WARNING", said


def _streams(value: int) -> tuple[int | None, str, str]:
    said = "" if value >= 0 else f"nbStreams {value} should not be negative"
    return (None if said else value), "WARNING", said


def _listed(field: str, enumeration: str, answer: Any = None) -> tuple[Any, Any]:
    """The same for a value of an enumeration: a value outside it is refused, and the setting stays.

    `answer` is `boolean` where the native setter returns one, which the bindings drop.
    """
    _, getter = _stored(i32, field)

    @virtual(answer, i32)
    def setter(self: Any, value: int) -> bool:
        taken = self.world.holds(enumeration, value)
        if taken:
            self.settings[field] = value
        return bool(taken)

    return setter, getter


class Config(Native):
    interface = "IBuilderConfig"

    set_avg_timing_iterations, avg_timing_iterations = _stored(i32, "avg_timing_iterations")
    set_int8_calibrator, int8_calibrator = _stored(ptr, "int8_calibrator")
    set_default_device_type, default_device_type = _listed("default_device_type", "DeviceType")
    set_profiling_verbosity, profiling_verbosity = _listed(
        "profiling_verbosity", "ProfilingVerbosity"
    )
    set_builder_optimization_level, builder_optimization_level = _bounded(
        "optimization_level", _level
    )
    set_hardware_compatibility_level, hardware_compatibility_level = _listed(
        "hardware", "HardwareCompatibilityLevel"
    )
    set_max_aux_streams, max_aux_streams = _bounded("max_aux_streams", _streams)
    set_progress_monitor, progress_monitor = _stored(ptr, "progress_monitor")
    set_runtime_platform, runtime_platform = _listed("runtime_platform", "RuntimePlatform")
    set_max_num_tactics, max_num_tactics = _bounded("max_num_tactics", _tactics)
    set_tiling_optimization_level, tiling_optimization_level = _listed(
        "tiling", "TilingOptimizationLevel", boolean
    )
    _, l2_limit_for_tiling = _stored(i64, "l2_limit")

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.settings: dict[str, Any] = {
            "optimization_level": 3,
            "max_num_tactics": -1,
            "max_aux_streams": -1,
            "avg_timing_iterations": 1,
            "DLA_core": -1,
        }
        self.mask = 1 << 6  # TF32 is on from the start
        self.pools = dict(POOLS)
        self.profiles: list[Profile] = []
        self.calibration_profile: Profile | None = None
        self.cache: TimingCache | None = None
        self.route = ""

    def has(self, flag: str) -> bool:
        number = FLAGS[flag][self.world.major == 11]
        return number is not None and bool(self.mask >> number & 1)

    @virtual(u32)
    def flags(self) -> int:
        return self.mask

    @virtual(None, u32)
    def set_flags(self, mask: int) -> None:
        if self.world.holds("BuilderFlag", mask.bit_length() - 1 if mask else 0):
            self.mask = mask

    @virtual(None, i32)
    def set_flag(self, flag: int) -> None:
        if not self.world.holds("BuilderFlag", flag):
            return
        if flag == FLAGS["EXCLUDE_LEAN_RUNTIME"][self.world.major == 11] and not self.has(
            "VERSION_COMPATIBLE"
        ):
            self.world.log(
                "ERROR", "kEXCLUDE_LEAN_RUNTIME can only be set if kVERSION_COMPATIBLE is set."
            )
            return
        self.mask |= 1 << flag

    @virtual(boolean, i64)
    def set_l2_limit_for_tiling(self, count: int) -> bool:
        if count < 0:
            said = f"sizeInBytes {count} should not be negative value, it has no effect."
            self.world.log("WARNING", said)
            return False
        self.settings["l2_limit"] = count
        return True

    @virtual(i32)
    def dla_core(self) -> int:
        return int(self.settings["DLA_core"])

    @virtual(None, i32)
    def set_dla_core(self, core: int) -> None:
        if core < self.world.dla_cores:
            self.settings["DLA_core"] = core

    @virtual(None, i32)
    def clear_flag(self, flag: int) -> None:
        if self.world.holds("BuilderFlag", flag):
            self.mask &= ~(1 << flag)

    @virtual(boolean, i32)
    def get_flag(self, flag: int) -> bool:
        return self.world.holds("BuilderFlag", flag) and bool(self.mask >> flag & 1)

    @virtual(i32, ptr)
    def add_optimization_profile(self, profile: int) -> int:
        if not Native.of(profile).is_valid():
            self.world.log("ERROR", "Parameter check failed, condition: profile->isValid()")
            return -1
        self.profiles.append(Native.of(profile))
        return len(self.profiles) - 1

    @virtual(i32)
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    @virtual(boolean, ptr)
    def set_calibration_profile(self, profile: int) -> bool:
        self.calibration_profile = Native.of(profile)
        return True

    @virtual(ptr, ptr, size)
    def create_timing_cache(self, blob: int | None, count: int) -> TimingCache | None:
        if not count:
            return TimingCache(self.world, {})
        content = ctypes.string_at(blob, count)
        try:
            stored = json.loads(content[6:] if content.startswith(b"TIMING") else b"")
            entries = {str(key): float(value) for key, value in stored["entries"].items()}
            version = int(stored["version"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            # As the real library does: it returns no null pointer, but an empty cache, and logs two lines.
            self.world.log("WARNING", "The timing cache will not be used!")
            self.world.log(
                "WARNING", "Failed to deserialize timing cache. Returning an empty timing cache."
            )
            return TimingCache(self.world, {})
        made = TimingCache(self.world, entries)
        made.version = version  # type: ignore[attr-defined]
        return made

    @virtual(boolean, ptr, boolean)
    def set_timing_cache(self, cache: int, ignore_mismatch: bool) -> bool:
        given = Native.of(cache)
        if (
            getattr(given, "version", self.world.number) != self.world.number
            and not ignore_mismatch
        ):
            self.world.log("ERROR", "the timing cache is of another version")
            return False
        self.cache = given
        return True

    @virtual(ptr)
    def get_timing_cache(self) -> TimingCache | None:
        return self.cache

    @virtual(None, i32, size)
    def set_memory_pool_limit(self, pool: int, count: int) -> None:
        if not self.world.holds("MemoryPoolType", pool):
            return
        said = ""
        if pool in DLA_POOLS and not self.world.dla_cores:
            said = "Setting DLA memory pool size on TensorRT build with DLA disabled."
        elif pool in (*DLA_POOLS, TACTIC_DRAM) and (pool, count) != (DLA_SRAM, 0):
            if count < SMALLEST_POOL or count.bit_count() != 1:
                said = "poolSize >= kDLA_MIN_MEMORY_POOL_SIZE && std::has_single_bit(poolSize)"
        elif pool == TACTIC_SHARED and count > POOLS[TACTIC_SHARED]:
            said = "poolSize <= kTACTIC_MAX_SHMEM_DEFAULT_SIZE"
        if said:
            self.world.log("ERROR", f"Parameter check failed, condition: {said}")
            return
        self.pools[pool] = count

    @virtual(size, i32)
    def get_memory_pool_limit(self, pool: int) -> int:
        return self.pools.get(pool, 0) if self.world.holds("MemoryPoolType", pool) else 0

    @virtual(boolean, text)
    def set_build_route(self, route: str) -> bool:
        self.route = route
        return True

    @virtual(text)
    def build_route(self) -> str:
        return self.route
