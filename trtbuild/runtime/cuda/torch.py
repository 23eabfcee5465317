"""The GPU through torch, for programs that have torch anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import DeviceError
from trtbuild.runtime.cuda.provider import ObjectHandles

if TYPE_CHECKING:
    from trtbuild.runtime.cuda.provider import GraphProvider

__all__ = ["TorchProvider"]


class TorchProvider(ObjectHandles):
    """Torch tensors, streams, events and graphs behind addresses and handles.

    Args:
        index: number of the GPU.

    Raises:
        DeviceError: this torch was built without CUDA.
    """

    name = "torch"

    def __init__(self, index: int) -> None:
        super().__init__()
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(
                "this torch cannot access the GPU (torch.cuda.is_available() is false). Install a torch "
                "with CUDA, or use --cuda cuda-python."
            )
        self._torch: Any = torch
        self.errors: tuple[type[Exception], ...] = _errors(torch)
        self.graphs: GraphProvider = self
        self._device = torch.device("cuda", index)
        self._entered: list[Any] = []

    def push(self) -> None:
        scope = self._torch.cuda.device(self._device)
        scope.__enter__()
        self._entered.append(scope)

    def pop(self) -> None:
        self._entered.pop().__exit__(None, None, None)

    def close(self) -> None:
        self._objects.clear()

    def allocate(self, nbytes: int) -> int:
        try:
            memory = self._torch.empty(nbytes, dtype=self._torch.uint8, device=self._device)
        except self._torch.OutOfMemoryError as error:
            raise DeviceError(f"torch has no {nbytes} bytes of device memory: {error}") from error
        return self._keep(memory.data_ptr(), memory)

    def free(self, address: int) -> None:
        del self._objects[address]

    def allocate_pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        memory = self._torch.empty(nbytes, dtype=self._torch.uint8, pin_memory=True)
        array: np.ndarray = memory.numpy()
        self._keep(array.ctypes.data, memory)
        return array

    def free_pinned(self, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        del self._objects[memory.ctypes.data]

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        source = self._torch.from_numpy(array.reshape(-1).view(np.uint8))
        with self._torch.cuda.stream(self._objects[stream]):
            self._objects[address][: array.nbytes].copy_(source, non_blocking=True)

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        target = self._torch.from_numpy(array.reshape(-1).view(np.uint8))
        with self._torch.cuda.stream(self._objects[stream]):
            target.copy_(self._objects[address][: array.nbytes], non_blocking=True)

    def create_stream(self) -> int:
        stream = self._torch.cuda.Stream(self._device)
        return self._keep(stream.cuda_stream, stream)

    def create_event(self) -> int:
        event = self._torch.cuda.Event(enable_timing=True)
        return self._keep(id(event), event)

    def elapsed_ms(self, start: int, stop: int) -> float:
        self._objects[stop].synchronize()
        return float(self._objects[start].elapsed_time(self._objects[stop]))

    def begin_capture(self, stream: int) -> None:
        graph = self._torch.cuda.CUDAGraph()
        scope = self._torch.cuda.stream(self._objects[stream])
        scope.__enter__()
        graph.capture_begin(capture_error_mode="thread_local")
        self._entered.append((graph, scope))

    def end_capture(self, stream: int) -> int:
        del stream  # torch captures the current stream, which begin_capture has set
        graph, scope = self._entered.pop()
        graph.capture_end()
        scope.__exit__(None, None, None)
        return self._keep(id(graph), graph)

    def launch(self, graph: int, stream: int) -> None:
        with self._torch.cuda.stream(self._objects[stream]):
            self._objects[graph].replay()

    def destroy_graph(self, graph: int) -> None:
        del self._objects[graph]


def _errors(torch: Any) -> tuple[type[Exception], ...]:
    """Return the error types of torch for driver errors; ``AcceleratorError`` exists from 2.8 on."""
    names = ("OutOfMemoryError", "AcceleratorError")
    found = [getattr(torch, name) for name in names if hasattr(torch, name)]
    return (*found, torch.cuda.CudaError)
