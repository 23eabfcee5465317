"""The protocol between `Device` and the package that reaches the CUDA driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GraphProvider", "ObjectHandles", "Provider"]


class Provider(Protocol):
    """CUDA as plain functions on addresses and handles (all int); `Device` adds ownership.

    Every provider works in the *primary* context of its GPU, the one that TensorRT and torch use too, and
    makes it current only between `push` and `pop`: whatever was current before is current again afterwards.
    Nothing here may be called outside of such a pair. A failing call raises `DeviceError`, or one of
    `errors`, which `Device` turns into it.
    """

    @property
    def name(self) -> str:
        """Name that the option and messages use."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the package itself raises when the driver refuses."""
        ...

    @property
    def graphs(self) -> GraphProvider | None:
        """How CUDA graphs are captured; None where the package cannot."""
        ...

    def push(self) -> None:
        """Make the primary context current."""
        ...

    def pop(self) -> None:
        """Make current again what was current before `push`."""
        ...

    def close(self) -> None:
        """Give the primary context back. Outside of push and pop."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Take device memory; answer its address."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back."""
        ...

    def allocate_pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Take page-locked host memory, uint8 ``[nbytes]``."""
        ...

    def free_pinned(self, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Give page-locked memory back."""
        ...

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Start copying a contiguous array; it must stay untouched until the stream was waited for."""
        ...

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Start copying into a contiguous array; it is filled once the stream was waited for."""
        ...

    def create_stream(self) -> int:
        """Make a stream that does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work of a stream is done."""
        ...

    def create_event(self) -> int:
        """Make an event that keeps time."""
        ...

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let a stream note the time in an event when it gets there."""
        ...

    def elapsed_ms(self, start: int, stop: int) -> float:
        """Wait for `stop` and answer the milliseconds since `start`."""
        ...


class GraphProvider(Protocol):
    """CUDA graphs, under the same rules."""

    def begin_capture(self, stream: int) -> None:
        """Write down what is given to a stream from here on, instead of doing it."""
        ...

    def end_capture(self, stream: int) -> int:
        """Stop writing down; answer the graph, ready to be launched."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Let a stream do everything that a graph holds."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        ...


class ObjectHandles:
    """What packages with objects for memory, streams and events have in common: handles stand for them."""

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
