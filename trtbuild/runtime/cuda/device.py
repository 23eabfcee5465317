"""A GPU's memory, streams, events and graphs; the `Device` owns everything that was made."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.runtime.cuda.provider import GraphProvider, Provider

__all__ = ["Buffer", "Device", "Pinned"]


@dataclass(frozen=True)
class Buffer:
    """Memory on the GPU.

    Attributes:
        address: device pointer, aligned to at least 256 bytes.
        nbytes: size.
        free: frees the memory; safe to call twice.
    """

    address: int
    nbytes: int
    free: Callable[[], None]


@dataclass(frozen=True)
class Pinned:
    """Page-locked host memory, whose copies run in parallel with other work.

    Attributes:
        array: the memory as an array.
        free: frees the memory; safe to call twice. The array must not be used afterwards.
    """

    array: np.ndarray
    free: Callable[[], None]


class Device:
    """One GPU, reached through one provider. Close it, or use it as a context manager.

    `close` frees everything made here that is not freed yet, newest first, so that nothing outlives its
    context. A device belongs to the thread that opened it (pycuda requires it); a GPU may have several
    devices.

    Args:
        provider: the opened provider; the device owns it.
        index: number of the GPU among the visible ones.
    """

    def __init__(self, provider: Provider, index: int = 0) -> None:
        self.index = index
        self._provider = provider
        self._owned: dict[object, Callable[[], None]] = {}
        self._upload_stream: int | None = None
        self._closed = False

    @property
    def provider(self) -> str:
        """Name of the provider: ``pycuda``, ``cuda-python`` or ``torch``."""
        return self._provider.name

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU's primary context current for a block; call TensorRT only inside.

        Raises:
            DeviceError: a driver call in the block fails.
        """
        try:
            self._provider.push()
            try:
                yield
            finally:
                self._provider.pop()
        except self._provider.errors as error:
            raise DeviceError(f"the GPU failed, says {self.provider}: {error}.") from error

    def allocate(self, nbytes: int) -> Buffer:
        """Allocate device memory; a size of 0 gets one byte, because TensorRT needs a pointer anyway.

        Raises:
            DeviceError: there is not enough memory.
        """
        size = max(1, nbytes)
        with self.active():
            address = self._provider.allocate(size)
        return Buffer(address, size, self._own(address, self._provider.free))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Pinned:
        """Allocate page-locked host memory as an array of `shape` and `dtype`; its content is undefined.

        Raises:
            DeviceError: there is not enough memory.
        """
        kind = np.dtype(dtype)
        count = math.prod(shape)
        with self.active():
            memory = self._provider.allocate_pinned(max(1, count * kind.itemsize))
        array = memory[: count * kind.itemsize].view(kind).reshape(shape)
        return Pinned(array, self._own(memory, self._provider.free_pinned))

    def stream(self) -> int:
        """Make a stream that does not wait for the default stream."""
        with self.active():
            handle = self._provider.create_stream()
        self._own(handle, self._provider.destroy_stream)
        return handle

    def event(self) -> int:
        """Make an event that can be timed."""
        with self.active():
            handle = self._provider.create_event()
        self._own(handle, self._provider.destroy_event)
        return handle

    def copy_to_device(self, buffer: Buffer, array: np.ndarray, stream: int) -> None:
        """Start a copy; call inside `active`. `array` is contiguous, unchanged until `synchronize`."""
        self._provider.copy_to_device(buffer.address, array, stream)

    def copy_to_host(self, array: np.ndarray, buffer: Buffer, stream: int) -> None:
        """Start a copy; call inside `active`. `array` is contiguous and is filled after `synchronize`."""
        self._provider.copy_to_host(array, buffer.address, stream)

    def synchronize(self, stream: int) -> None:
        """Wait for everything on the stream; call inside `active`."""
        self._provider.synchronize(stream)

    def upload(self, buffer: Buffer, array: np.ndarray) -> None:
        """Copy a contiguous array into device memory and wait until it is there."""
        if self._upload_stream is None:
            self._upload_stream = self.stream()
        with self.active():
            self._provider.copy_to_device(buffer.address, array, self._upload_stream)
            self._provider.synchronize(self._upload_stream)

    def record(self, event: int, stream: int) -> None:
        """Record the event when the stream reaches this point; call inside `active`."""
        self._provider.record(event, stream)

    def elapsed_ms(self, start: int, stop: int) -> float:
        """Wait for `stop` and return the milliseconds between both events; call inside `active`."""
        return self._provider.elapsed_ms(start, stop)

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Capture what `work` puts on the stream as a graph, without running it; call inside `active`.

        Raises:
            DeviceError: the provider has no CUDA graphs.
        """
        graphs = self._graphs()
        graphs.begin_capture(stream)
        try:
            work()
        finally:
            graph = graphs.end_capture(stream)
            self._own(graph, graphs.destroy_graph)
        return graph

    def launch(self, graph: int, stream: int) -> None:
        """Put a captured graph on the stream; call inside `active`."""
        self._graphs().launch(graph, stream)

    def close(self) -> None:
        """Free everything that was made here, then the context. Safe to call twice."""
        if self._closed:
            return
        for give_back in reversed(list(self._owned.values())):
            give_back()
        self._closed = True
        self._provider.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _graphs(self) -> GraphProvider:
        if self._provider.graphs is None:
            raise DeviceError(
                f"{self.provider} cannot capture CUDA graphs. Use --cuda cuda-python."
            )
        return self._provider.graphs

    def _own(self, handle: Any, destroy: Callable[[Any], None]) -> Callable[[], None]:
        """Return a function that frees `handle`; `close` calls it if nobody has."""
        key = object()

        def give_back() -> None:
            if self._owned.pop(key, None):
                with self.active():
                    destroy(handle)

        self._owned[key] = give_back
        return give_back
