"""The build side of the stand-in: profiles, configuration, timing cache, builder."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference

from tests.tensorrt_stub import slots
from tests.tensorrt_stub.native import (
    Dims,
    Native,
    boolean,
    i32,
    i64,
    invoke,
    ptr,
    size,
    text,
    u32,
    virtual,
)
from tests.tensorrt_stub.network import Network, Tensor
from tests.tensorrt_stub.world import plan_of

PART = 4096  # bytes of a plan that are written at once
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
        self.shapes.setdefault(name, [()] * 3)[which] = shape
        return all(extent >= 0 for extent in shape)

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
        return all(
            len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True))
            for a, b in itertools.pairwise(known)
        )

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
    set_builder_optimization_level, builder_optimization_level = _stored(i32, "optimization_level")
    set_hardware_compatibility_level, hardware_compatibility_level = _stored(i32, "hardware")
    set_max_aux_streams, max_aux_streams = _stored(i32, "max_aux_streams")
    set_progress_monitor, progress_monitor = _stored(ptr, "progress_monitor")
    set_runtime_platform, runtime_platform = _stored(i32, "runtime_platform")
    set_max_num_tactics, max_num_tactics = _stored(i32, "max_num_tactics")
    set_tiling_optimization_level, tiling_optimization_level = _checked(i32, "tiling")
    set_l2_limit_for_tiling, l2_limit_for_tiling = _checked(i64, "l2_limit")

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.settings: dict[str, Any] = {"optimization_level": 3, "max_num_tactics": -1}
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


class Builder(Native):
    interface = "Builder"

    @virtual(ptr)
    def create_builder_config(self) -> Config:
        return Config(self.world)

    @virtual(ptr, u32)
    def create_network(self, flags: int) -> Network:
        return Network(self.world, flags)

    @virtual(ptr)
    def create_optimization_profile(self) -> Profile:
        return Profile(self.world)

    @virtual(i32)
    def num_dla_cores(self) -> int:
        return int(self.world.dla_cores)

    @virtual(boolean, ptr, ptr)
    def is_network_supported(self, network: int, config: int) -> bool:
        return True

    @virtual(ptr, ptr, ptr)
    def build_serialized_network(self, network: int, config: int) -> HostMemory | None:
        return _Build(self.world, Native.of(network), Native.of(config)).run()

    @virtual(boolean, ptr, ptr, ptr)
    def build_serialized_network_to_stream(self, network: int, config: int, writer: int) -> bool:
        """Write the plan in parts; that a writer takes less is not noticed, as in the real library."""
        built = _Build(self.world, Native.of(network), Native.of(config)).run()
        if built is None:
            return False
        for start in range(0, len(built.content), PART):
            part = built.content[start : start + PART]
            at = Native.keep(part)
            invoke(writer, slots.STREAM_WRITE, i64, (ptr, at), (i64, len(part)))
        return True


class _Build:
    """One build: progress, calibration, timing, plan; in the order that TensorRT documents."""

    def __init__(self, world: Any, network: Network, config: Config) -> None:
        self.world, self.network, self.config = world, network, config

    def run(self) -> HostMemory | None:
        self._start("Building Engine", None, 3)
        steps = [self._calibrate, self._time, lambda: True]
        for index, step in enumerate(steps):
            if self.world.on_step:
                self.world.on_step(index)
            if not step():
                return None
            if not self._done("Building Engine", index):
                self.world.log("ERROR", "the build was cancelled by the progress monitor")
                return None
        self._finish("Building Engine")
        return HostMemory(self.world, self._plan())

    def _quantized(self) -> bool:
        return any(layer.node.op_type == "QuantizeLinear" for layer in self.network.layers)

    def _monitor(self) -> int:
        return int(self.config.settings.get("progress_monitor") or 0)

    def _start(self, phase: str, parent: str | None, steps: int) -> None:
        if self._monitor():
            names = (text, phase.encode()), (text, parent.encode() if parent else None)
            invoke(self._monitor(), slots.PHASE_START, None, *names, (i32, steps))

    def _done(self, phase: str, step: int) -> bool:
        if not self._monitor():
            return True
        arguments = (text, phase.encode()), (i32, step)
        return bool(invoke(self._monitor(), slots.STEP_COMPLETE, boolean, *arguments))

    def _finish(self, phase: str) -> None:
        if self._monitor():
            invoke(self._monitor(), slots.PHASE_FINISH, None, (text, phase.encode()))

    def _calibrate(self) -> bool:
        calibrator = self.config.settings.get("int8_calibrator")
        if not self.config.has("INT8") or not calibrator or self._quantized():
            return True
        invoke(calibrator, slots.GET_BATCH_SIZE, i32)
        count = ctypes.c_size_t(0)
        at = invoke(calibrator, slots.READ_CACHE, ptr, (ptr, ctypes.addressof(count)))
        if at:
            self.world.calls.append(
                ("calibrator.cache", ctypes.string_at(at, count.value).decode())
            )
            if ctypes.string_at(at, count.value).startswith(f"TRT-{self.world.number}-".encode()):
                return True
            self.world.log("WARNING", "Calibration cache of another version is ignored.")
        self._draw(calibrator)
        lines = [f"TRT-{self.world.number}-EntropyCalibration2"]
        lines += [f"{tensor._name}: 3c010a14" for tensor in self.network.inputs]
        content = ("\n".join(lines) + "\n").encode()
        invoke(
            calibrator, slots.WRITE_CACHE, None, (ptr, Native.keep(content)), (size, len(content))
        )
        return True

    def _draw(self, calibrator: int) -> None:
        inputs = self.network.inputs
        names = (ctypes.c_char_p * len(inputs))(*(tensor._name.encode() for tensor in inputs))
        pointers = (ctypes.c_void_p * len(inputs))()
        drawn = 0
        while drawn != self.world.early_end and invoke(
            calibrator, slots.GET_BATCH, boolean,
            (ptr, ctypes.addressof(pointers)), (ptr, ctypes.addressof(names)), (i32, len(inputs)),
        ):  # fmt: skip
            self.world.batches.append(
                {t._name: self._read(pointers[i], t) for i, t in enumerate(inputs)}
            )
            drawn += 1

    def _read(self, address: int, tensor: Tensor) -> list[float]:
        profile = self.config.calibration_profile
        shape = profile.shapes[tensor._name][1] if profile else tensor.dims
        count = int(np.prod(shape))
        return (
            np.frombuffer(ctypes.string_at(address, 4 * count), np.float32).reshape(shape).tolist()
        )

    def _time(self) -> bool:
        if self.config.settings["optimization_level"] == 0 or self.config.has(
            "DISABLE_TIMING_CACHE"
        ):
            return True
        cache = self.config.cache or TimingCache(self.world, {})
        self.config.cache = cache
        self._start("Timing", "Building Engine", len(self.network.layers))
        for index, layer in enumerate(self.network.layers):
            key = hashlib.sha256(
                f"{layer.node.op_type} {list(layer.node.input)}".encode()
            ).hexdigest()[:16]
            if key not in cache.entries and self.config.has("ERROR_ON_TIMING_CACHE_MISS"):
                self.world.log("ERROR", f"timing cache miss for key {key}")
                return False
            cache.entries.setdefault(key, 0.5)
            if not self._done("Timing", index):
                self.world.log("ERROR", "the build was cancelled by the progress monitor")
                return False
        self._finish("Timing")
        return True

    def _weights(self) -> Any:
        return onnx.load_from_string(self.network.model).graph.initializer

    def _plan(self) -> bytes:
        int8 = self._quantized() or self.config.has("INT8")
        fp16 = self.config.has("FP16") or any(t.data_type == 10 for t in self._weights())
        header = {
            "version": self.world.number,
            "device": self.world.device,
            "flags": self.config.mask,
            "detailed": self.config.settings.get("profiling_verbosity", 0) == 2,
            "int8": int8 and "int8" not in self.world.loses,
            "fp16": fp16 and "fp16" not in self.world.loses,
            "profiles": [profile.shapes for profile in self.config.profiles],
            "values": [profile.values for profile in self.config.profiles],
            "shape_inputs": sorted(self.world.shape_inputs),
            "host_code": bool(self.config.mask >> (13 if self.world.major == 10 else 12) & 1),
            "stripped": bool(self.config.mask >> (19 if self.world.major == 10 else 18) & 1),
            "streaming": bool(self.config.mask >> (21 if self.world.major == 10 else 20) & 1),
        }
        return plan_of(header, self.network.model)
