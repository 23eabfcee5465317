"""What a build is told of the stand-in: profiles, settings and what it refuses, the timing cache."""

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

DLA_POOLS = (1, 2, 3)
FLAGS = {
    "FP16": (0, None),
    "INT8": (1, None),
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
        self.shapes: dict[str, list[tuple[int, ...]]] = {}
        self.values: dict[str, list[tuple[int, ...]]] = {}

    @virtual(boolean, text, i32, ptr)
    def set_shape(self, name: str, which: int, dims: int) -> bool:
        # Selector 0 is min, 1 is opt, 2 is max. Their order is looked at when the profile is added.
        shape = Dims.at(dims)
        if any(extent < 0 for extent in shape):
            self.world.log("ERROR", "Parameter check failed, condition: x >= 0")
            return False
        self.shapes.setdefault(name, [()] * 3)[which] = shape
        return True

    @property
    def is_in_order(self) -> bool:
        return all(
            len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True))
            for shapes in self.shapes.values()
            for a, b in itertools.pairwise(shapes)
        )

    @virtual(boolean, text, i32, ptr, i32)
    def set_shape_input(self, name: str, which: int, values: int, count: int) -> bool:
        if name not in self.world.shape_inputs:
            return False
        given = tuple((i64 * count).from_address(values))
        self.values.setdefault(name, [()] * 3)[which] = given
        known = [one for one in self.values[name] if one]
        in_order = all(
            len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True))
            for a, b in itertools.pairwise(known)
        )
        if not in_order:
            self.world.log("ERROR", f"Invalid values of {name}, which must satisfy MIN<=OPT<=MAX.")
        return in_order

    @virtual(Dims, text, i32)
    def get_shape(self, name: str, which: int) -> tuple[int, ...]:
        return self.shapes[name][which]


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
    """The same for a number that is looked at: what it becomes, None as it was, and a line of the log."""
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


def _checked(kind: Any, field: str) -> tuple[Any, Any]:
    """The same for a setting whose native setter answers a bool that the bindings drop."""
    _, getter = _stored(kind, field)

    @virtual(boolean, kind)
    def setter(self: Any, value: Any) -> bool:
        self.settings[field] = value
        return True

    return setter, getter


class Config(Native):
    interface = "IBuilderConfig"

    set_avg_timing_iterations, avg_timing_iterations = _stored(i32, "avg_timing_iterations")
    set_int8_calibrator, int8_calibrator = _stored(ptr, "int8_calibrator")
    set_dla_core, dla_core = _stored(i32, "DLA_core")
    set_default_device_type, default_device_type = _stored(i32, "default_device_type")
    set_profiling_verbosity, profiling_verbosity = _stored(i32, "profiling_verbosity")
    set_builder_optimization_level, builder_optimization_level = _bounded(
        "optimization_level", _level
    )
    set_hardware_compatibility_level, hardware_compatibility_level = _stored(i32, "hardware")
    set_max_aux_streams, max_aux_streams = _bounded("max_aux_streams", _streams)
    set_progress_monitor, progress_monitor = _stored(ptr, "progress_monitor")
    set_runtime_platform, runtime_platform = _stored(i32, "runtime_platform")
    set_max_num_tactics, max_num_tactics = _bounded("max_num_tactics", _tactics)
    set_tiling_optimization_level, tiling_optimization_level = _checked(i32, "tiling")
    set_l2_limit_for_tiling, l2_limit_for_tiling = _checked(i64, "l2_limit")

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.settings: dict[str, Any] = {
            "optimization_level": 3,
            "max_num_tactics": -1,
            "max_aux_streams": -1,
        }
        self.mask = 1 << 6  # TF32 is on from the start
        self.pools: dict[int, int] = {}
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

    @virtual(None, i32)
    def set_flag(self, flag: int) -> None:
        self.mask |= 1 << flag

    @virtual(None, i32)
    def clear_flag(self, flag: int) -> None:
        self.mask &= ~(1 << flag)

    @virtual(boolean, i32)
    def get_flag(self, flag: int) -> bool:
        return bool(self.mask >> flag & 1)

    @virtual(i32, ptr)
    def add_optimization_profile(self, profile: int) -> int:
        if not Native.of(profile).is_in_order:
            self.world.log(
                "ERROR", "Invalid optimization profiles, which must satisfy MIN<=OPT<=MAX."
            )
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
            # So the real library does: never null, but an empty cache and two lines.
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
        if pool in DLA_POOLS and count.bit_count() != 1:
            self.world.log("ERROR", "Parameter check failed, condition: the size is a power of two")
            return
        self.pools[pool] = count

    @virtual(size, i32)
    def get_memory_pool_limit(self, pool: int) -> int:
        return self.pools.get(pool, 0)

    @virtual(boolean, text)
    def set_build_route(self, route: str) -> bool:
        self.route = route
        return True

    @virtual(text)
    def build_route(self) -> str:
        return self.route
