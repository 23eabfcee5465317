"""The protocol between `Device` and the package that reaches the CUDA driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GraphProvider", "ObjectHandles", "Provider"]


class Provider(Protocol):
    """CUDA as plain functions on addresses and handles (all int); `Device` adds ownership.

    Every provider works in the *primary* context of its GPU, which TensorRT and torch use, too. The context
    is current only between `push` and `pop`, which restores the context that was current before. No function
    may be called outside such a pair. A failing call raises `DeviceError`, or one of `errors`, which `Device`
    turns into it.
    """

    @property
    def name(self) -> str:
        """Name for the option and for messages."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Error types that the package itself raises for driver errors."""
        ...

    @property
    def graphs(self) -> GraphProvider | None:
        """Captures CUDA graphs; None if the package cannot."""
        ...

    def push(self) -> None:
        """Make the primary context current."""
        ...

    def pop(self) -> None:
        """Make the context current again that was current before `push`."""
        ...

    def close(self) -> None:
        """Release the primary context. Call outside of push and pop."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Allocate device memory; return its address."""
        ...

    def free(self, address: int) -> None:
        """Free device memory."""
        ...

    def allocate_pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Allocate page-locked host memory, uint8 ``[nbytes]``."""
        ...

    def free_pinned(self, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Free page-locked memory."""
        ...

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Start copying a contiguous array; do not change it before the stream is synchronized."""
        ...

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Start copying into a contiguous array; it is filled once the stream is synchronized."""
        ...

    def create_stream(self) -> int:
        """Make a stream that does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work of a stream is done."""
        ...

    def create_event(self) -> int:
        """Make an event that records time."""
        ...

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Record the time in an event when the stream reaches this point."""
        ...

    def elapsed_ms(self, start: int, stop: int) -> float:
        """Wait for `stop` and return the milliseconds since `start`."""
        ...


class GraphProvider(Protocol):
    """CUDA graphs; the rules of `Provider` apply."""

    def begin_capture(self, stream: int) -> None:
        """Capture the work given to a stream from here on, instead of doing it."""
        ...

    def end_capture(self, stream: int) -> int:
        """End the capture; return the graph, ready to launch."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Put all work of a graph on a stream."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        ...


class ObjectHandles:
    """Common part of providers whose package has objects for memory, streams and events."""

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}

    def _keep(self, handle: int, item: Any) -> int:
        self._objects[handle] = item
        return handle

    def destroy_stream(self, stream: int) -> None:
        del self._objects[stream]

    def synchronize(self, stream: int) -> None:
        self._objects[stream].synchronize()

    def destroy_event(self, event: int) -> None:
        del self._objects[event]

    def record(self, event: int, stream: int) -> None:
        self._objects[event].record(self._objects[stream])
