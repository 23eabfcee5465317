"""The build side of the stand-in."""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference

from tests.tensorrt_stub import slots
from tests.tensorrt_stub.config import Config, HostMemory, Profile, TimingCache
from tests.tensorrt_stub.native import (
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

PART = 4096  # bytes of a plan per write
PHASE = "Building engine"


class Builder(Native):
    interface = "Builder"

    @virtual(ptr)
    def create_builder_config(self) -> Config:
        return Config(self.world)

    @virtual(ptr, u32)
    def create_network(self, flags: int) -> Network | None:
        last = flags.bit_length() - 1 if flags else 0
        if not self.world.holds("NetworkDefinitionCreationFlag", last):
            return None
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
        """Write the plan in parts; like the real library, ignores that a writer takes less."""
        built = _Build(self.world, Native.of(network), Native.of(config)).run()
        if built is None:
            return False
        for start in range(0, len(built.content), PART):
            part = built.content[start : start + PART]
            at = Native.keep(part)
            invoke(writer, slots.STREAM_WRITE, i64, (ptr, at), (i64, len(part)))
        return True


class _Build:
    """One build: progress, calibration, timing, plan, in the order of TensorRT's documentation."""

    def __init__(self, world: Any, network: Network, config: Config) -> None:
        self.world, self.network, self.config = world, network, config

    def _is_valid(self) -> bool:
        """Whether the network has outputs, and profiles that fit its inputs; if not, the log says why."""
        said = "" if self.network.outputs else "Network must have at least one output."
        open_inputs = [
            one for one in self.network.inputs if one.is_shape_tensor() or -1 in one.dims
        ]
        if open_inputs and not self.config.profiles:
            said = (
                "Network has dynamic or shape inputs, but no optimization profile has been defined."
            )
        wrong = [
            text
            for number, profile in enumerate(self.config.profiles)
            for one in self.network.inputs
            if (text := self._misfit(one, profile, number))
        ]
        said = wrong[0] if wrong else said
        if said:
            self.world.log("ERROR", said)
        return not said

    def _misfit(self, tensor: Tensor, profile: Profile, number: int) -> str:
        """The fault of a profile for an input; empty where there is none."""
        name, values = tensor.name(), profile.values.get(tensor.name())
        if tensor.is_shape_tensor():
            if values is None:
                return f"Optimization profile {number} is missing values for shape input tensor {name}."
            wanted = int(np.prod(tensor.dims))
            fits = all(len(one or ()) == wanted for one in values)
            return (
                "" if fits else f"Optimization profile {number}: not {wanted} elements for {name}."
            )
        if values is not None:
            said = f"{name}: shape values set for non-shape input in profile {number}."
            self.world.log("WARNING", said)
        shapes = profile.shapes.get(name)
        if shapes is None:
            missing = f"Dynamic input tensor {name} is missing dimensions in profile {number}."
            return missing if -1 in tensor.dims else ""
        fits = all(
            len(shape or ()) == len(tensor.dims)
            and all(
                dim in (-1, extent) for dim, extent in zip(tensor.dims, shape or (), strict=True)
            )
            for shape in shapes
        )
        return "" if fits else f"Dimension mismatch for tensor {name}."

    def run(self) -> HostMemory | None:
        if not self._is_valid():
            return None
        self._start(PHASE, None, 3)
        steps = [self._calibrate, self._time, lambda: True]
        for index, step in enumerate(steps):
            if self.world.on_step:
                self.world.on_step(index)
            if not step():
                return None
            if not self._done(PHASE, index):
                self._cancelled()
                return None
        self._finish(PHASE)
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

    def _cancelled(self) -> None:
        """Also end the phase of the build, as the real library does."""
        self._finish(PHASE)
        self.world.log("ERROR", "Build canceled by user")

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
        self._start("Timing", PHASE, len(self.network.layers))
        for index, layer in enumerate(self.network.layers):
            key = hashlib.sha256(
                f"{layer.node.op_type} {list(layer.node.input)}".encode()
            ).hexdigest()[:16]
            if key not in cache.entries and self.config.has("ERROR_ON_TIMING_CACHE_MISS"):
                self.world.log("ERROR", f"timing cache miss for key {key}")
                return False
            cache.entries.setdefault(key, 0.5)
            if not self._done("Timing", index):
                self._finish("Timing")
                self._cancelled()
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
