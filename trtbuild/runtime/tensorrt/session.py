"""Runs an engine: shapes, copies, one stream, optionally as a CUDA graph, optionally timed by events."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import ModelError, OptionError
from trtbuild.runtime.tensorrt.callbacks import make_allocator, make_profiler
from trtbuild.runtime.tensorrt.logger import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbuild.model.signature import TensorSpec
    from trtbuild.runtime.cuda import Buffer, Pinned
    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.engine import OpenedEngine

__all__ = ["TensorRTSession"]


class TensorRTSession:
    """One execution context of an engine, with its own stream and buffers.

    Args:
        engine: the opened engine.
        owns_engine: whether closing the session closes the engine.

    Raises:
        MissingError: there is not enough device memory.
    """

    def __init__(self, engine: OpenedEngine, *, owns_engine: bool = True) -> None:
        self._engine = engine
        self._owns_engine = owns_engine
        self._device = engine.device
        self._context: Any = engine.make_context()
        self._stream = self._device.stream()
        self._staged: dict[str, Pinned] = {}
        self._buffers: dict[str, Buffer] = {}
        self._allocators: dict[str, Any] = {}
        self._ran: tuple[Any, ...] | None = None
        self._graph: tuple[tuple[Any, ...], int] | None = None
        self._layer_runs: list[dict[str, float]] = []

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Names, dtypes and dims of the inputs."""
        return self._engine.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Names, dtypes and dims of the outputs."""
        return self._engine.outputs

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            ModelError: an input is missing or does not fit, or the execution fails.
        """
        with self._open().device.active():
            shapes = self._bind(feeds)
            for spec in self.inputs:
                self._copy_in(spec.name)
            self._execute(shapes)
            outputs = {spec.name: self._copy_out(spec) for spec in self.outputs}
            self._device.synchronize(self._stream)
            return {name: array.copy() for name, array in outputs.items()}

    def latencies_ms(self, feeds: Feeds, runs: int, warmup: int = 10) -> np.ndarray:
        """Time executions by CUDA events, without copies.

        Args:
            feeds: real data; power, and so speed, depends on the values.
            runs: number of timed executions.
            warmup: number of executions before them.

        Returns:
            Milliseconds of each execution, float64 ``[runs]``.

        Raises:
            ModelError: as in `run`.
        """
        device = self._open().device
        start, stop = device.event(), device.event()
        elapsed = np.empty(runs)
        with device.active():
            shapes = self._bind(feeds)
            for spec in self.inputs:
                self._copy_in(spec.name)
            for _ in range(warmup):
                self._execute(shapes)
            for index in range(runs):
                device.record(start, self._stream)
                self._execute(shapes)
                device.record(stop, self._stream)
                elapsed[index] = device.elapsed_ms(start, stop)
        return elapsed

    def run_profiled(self, feeds: Feeds, runs: int) -> None:
        """Run `runs` times with TensorRT's profiler.

        TensorRT waits after every execution for its profiler, and no CUDA graph is used. The profiler stays
        attached: time other runs in another session.

        Raises:
            ModelError: as in `run`.
        """
        profiler = make_profiler(self._open().tensorrt)
        with self._open().device.active():
            self._context.profiler = profiler
            self._bind(feeds)
            for spec in self.inputs:
                self._copy_in(spec.name)
            for _ in range(runs):
                profiler.layers = {}
                self._enqueue()
                self._device.synchronize(self._stream)
                self._layer_runs.append(dict(profiler.layers))

    def layer_runs_ms(self) -> list[dict[str, float]]:
        """Return layer -> milliseconds for each run of `run_profiled`; layers have the engine's names."""
        return self._layer_runs

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if self._context is None:
            return
        self._context = None
        for staged in self._staged.values():
            staged.free()
        for buffer in self._buffers.values():
            buffer.free()
        for allocator in self._allocators.values():
            if allocator.buffer is not None:
                allocator.buffer.free()
        if self._owns_engine:
            self._engine.close()

    def _open(self) -> OpenedEngine:
        if self._context is None:
            raise ModelError("this session has been closed; open the engine again.")
        return self._engine

    def _bind(self, feeds: Feeds) -> tuple[Any, ...]:
        """Stage the inputs, choose the profile, set shapes and addresses; return a key of them."""
        arrays = {spec.name: _checked(spec, feeds) for spec in self.inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        values = self._host_values(arrays)
        profile = self._engine.choose_profile(shapes, values)
        if profile != self._context.active_optimization_profile:
            with explained(self._engine.log, f"TensorRT does not take profile {profile}"):
                self._context.set_optimization_profile_async(profile, self._stream)
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ModelError(
                    f"TensorRT refuses the shape {array.shape} of input '{name}': "
                    f"{self._engine.log.reason()}."
                )
            self._stage(name, array)
        for spec in self.outputs:
            self._make_room(spec)
        missing = self._context.infer_shapes()
        if missing:
            raise ModelError(f"TensorRT has no shape or memory for {', '.join(missing)}.")
        addresses = sorted((name, buffer.address) for name, buffer in self._buffers.items())
        # Values of a shape decide what runs: a graph captured for other values would repeat their work.
        return (profile, *shapes.items(), *values.items(), *addresses)

    def _host_values(self, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """The numbers in the inputs that TensorRT reads on the host."""
        hosted = (name for name in arrays if self._engine.is_on_host(name))
        return {name: tuple(map(int, arrays[name].ravel())) for name in hosted}

    def _stage(self, name: str, array: np.ndarray) -> None:
        staged = self._pinned(name, array.shape, array.dtype)
        staged[...] = array
        if self._engine.is_on_host(name):
            self._set_address(name, staged.ctypes.data)
        else:
            self._set_address(name, self._buffer(name, array.nbytes).address)

    def _make_room(self, spec: TensorSpec) -> None:
        shape = tuple(int(dim) for dim in self._context.get_tensor_shape(spec.name))
        if -1 in shape:
            self._allocate_when_asked(spec.name)
        elif self._engine.is_on_host(spec.name):
            self._set_address(spec.name, self._pinned(spec.name, shape, spec.dtype).ctypes.data)
        else:
            nbytes = math.prod(shape) * spec.dtype.itemsize
            self._set_address(spec.name, self._buffer(spec.name, nbytes).address)
            self._pinned(spec.name, shape, spec.dtype)

    def _allocate_when_asked(self, name: str) -> None:
        if name not in self._allocators:
            allocator = make_allocator(self._engine.tensorrt, self._device)
            if not self._context.set_output_allocator(name, allocator):
                raise ModelError(f"TensorRT refuses an allocator for output '{name}'.")
            self._allocators[name] = allocator

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise ModelError(
                f"TensorRT refuses the memory of '{name}': {self._engine.log.reason()}."
            )

    def _copy_in(self, name: str) -> None:
        if not self._engine.is_on_host(name):
            self._device.copy_to_device(self._buffers[name], self._staged[name].array, self._stream)

    def _copy_out(self, spec: TensorSpec) -> np.ndarray:
        if spec.name in self._allocators:
            allocator = self._allocators[spec.name]
            array = self._pinned(spec.name, allocator.shape, spec.dtype)
            if array.nbytes:
                self._device.copy_to_host(array, allocator.buffer, self._stream)
            return array
        array = self._staged[spec.name].array
        if array.nbytes and not self._engine.is_on_host(spec.name):
            self._device.copy_to_host(array, self._buffers[spec.name], self._stream)
        return array

    def _execute(self, key: tuple[Any, ...]) -> None:
        """Put one execution on the stream: a captured graph if wanted and possible, else an ordinary call."""
        if not self._engine.options.cuda_graph:
            self._enqueue()
        elif self._graph is not None and self._graph[0] == key:
            self._device.launch(self._graph[1], self._stream)
        elif self._ran == key:
            self._graph = (key, self._capture(self._enqueue))
            self._device.launch(self._graph[1], self._stream)
        else:
            self._enqueue()  # TensorRT needs one ordinary execution after each change of shapes
            self._ran = key

    def _capture(self, work: Callable[[], None]) -> int:
        if self._allocators:
            name = next(iter(self._allocators))
            raise OptionError(
                f"no CUDA graph is possible: the data decides the shape of output '{name}'."
            )
        if self._engine.native.streamable_weights_size:
            raise OptionError("no CUDA graph is possible: the weights are streamed.")
        self._device.synchronize(self._stream)
        return self._device.capture(self._stream, work)

    def _enqueue(self) -> None:
        with explained(self._engine.log, "the execution failed"):
            done = self._context.execute_async_v3(self._stream)
        for name, allocator in self._allocators.items():
            if allocator.error is not None:
                error, allocator.error = allocator.error, None
                raise ModelError(f"no memory for output '{name}': {error}") from error
        if not done:
            raise ModelError(f"the execution failed: {self._engine.log.reason()}.")

    def _pinned(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Page-locked memory for a tensor; reused while its shape stays the same."""
        staged = self._staged.get(name)
        if staged is None or staged.array.shape != shape:
            if staged is not None:
                staged.free()
            staged = self._staged[name] = self._device.pinned(shape, dtype)
        return staged.array

    def _buffer(self, name: str, nbytes: int) -> Buffer:
        """Device memory for a tensor; reused while it is large enough."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            if buffer is not None:
                buffer.free()
            buffer = self._buffers[name] = self._device.allocate(nbytes)
        return buffer


def _checked(spec: TensorSpec, feeds: Feeds) -> np.ndarray:
    if spec.name not in feeds:
        raise ModelError(
            f"the input '{spec.name}' is missing; given are {', '.join(feeds) or 'none'}."
        )
    array = np.ascontiguousarray(feeds[spec.name])
    if array.ndim != len(spec.dims):
        raise ModelError(
            f"the input '{spec.name}' has the shape {array.shape}; expected {spec.dims}."
        )
    if array.dtype == spec.dtype:
        return array
    if array.dtype.kind == spec.dtype.kind == "f":
        return array.astype(spec.dtype)
    raise ModelError(f"the input '{spec.name}' is {array.dtype}; the engine wants {spec.dtype}.")
