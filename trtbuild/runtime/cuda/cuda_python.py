"""The GPU through NVIDIA's `cuda-python` (module ``cuda.bindings.driver``), which is available as wheels."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import DeviceError

if TYPE_CHECKING:
    from trtbuild.runtime.cuda.provider import GraphProvider

__all__ = ["CudaPythonProvider"]


class CudaPythonProvider:
    """Driver API calls through ``cuda.bindings.driver``, in the primary context of one GPU.

    Args:
        index: number of the GPU.

    Raises:
        DeviceError: the driver or the GPU does not start.
    """

    name = "cuda-python"
    errors = ()  # the bindings return codes, which become DeviceError here

    def __init__(self, index: int) -> None:
        from cuda.bindings import driver

        self._driver: Any = driver
        self.graphs: GraphProvider = self
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", index)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    def push(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def close(self) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._device)

    def allocate(self, nbytes: int) -> int:
        return int(self._call("cuMemAlloc", nbytes, about=f"{nbytes} bytes of device memory"))

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def allocate_pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        address = self._call("cuMemHostAlloc", nbytes, 0, about=f"{nbytes} bytes of pinned memory")
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(int(address)))

    def free_pinned(self, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._call("cuMemFreeHost", memory.ctypes.data)

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def create_stream(self) -> int:
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        return int(self._call("cuStreamCreate", int(flags)))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def create_event(self) -> int:
        return int(self._call("cuEventCreate", 0))

    def destroy_event(self, event: int) -> None:
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", event, stream)

    def elapsed_ms(self, start: int, stop: int) -> float:
        self._call("cuEventSynchronize", stop)
        return float(self._call("cuEventElapsedTime", start, stop))

    def begin_capture(self, stream: int) -> None:
        # Thread-local: other threads may go on allocating during the capture.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", graph)

    def _call(self, function: str, *arguments: Any, about: str = "") -> Any:
        """Call the driver and return its one result, if it has one."""
        code, *results = getattr(self._driver, function)(*arguments)
        if int(code):
            _, text = self._driver.cuGetErrorString(code)
            what = f" for {about}" if about else ""
            raise DeviceError(f"{function} failed{what}: {(text or b'').decode()} ({code.name}).")
        return results[0] if results else None
