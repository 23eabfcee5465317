"""The GPU through `pycuda`, in the primary context (``pycuda.autoinit`` would make another one)."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import DeviceError
from trtbuild.runtime.cuda.machine import DRIVER_LIBRARY
from trtbuild.runtime.cuda.provider import ObjectHandles

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PyCudaProvider"]


class PyCudaProvider(ObjectHandles):
    """PyCUDA's objects behind addresses and handles. PyCUDA cannot capture CUDA graphs.

    Args:
        index: number of the GPU.

    Raises:
        DeviceError: the driver or the GPU does not start.
    """

    name = "pycuda"
    graphs = None

    def __init__(self, index: int) -> None:
        super().__init__()
        import pycuda.driver

        self._driver: Any = pycuda.driver
        self.errors: tuple[type[Exception], ...] = (pycuda.driver.Error,)
        with self._explained("opening the GPU"):
            self._driver.init()
            self._context = self._driver.Device(index).retain_primary_context()

    def push(self) -> None:
        self._context.push()

    def pop(self) -> None:
        self._driver.Context.pop()

    def close(self) -> None:
        self._objects.clear()
        self._context.detach()
        # detach pushes a primary context to release it, and expects the release to pop it, which is true only
        # for pycuda's own contexts. A released context that stays current breaks later users of the GPU.
        ctypes.CDLL(DRIVER_LIBRARY).cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def allocate(self, nbytes: int) -> int:
        with self._explained(f"{nbytes} bytes of device memory"):
            memory = self._driver.mem_alloc(nbytes)
        return self._keep(int(memory), memory)

    def free(self, address: int) -> None:
        self._objects.pop(address).free()

    def allocate_pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        with self._explained(f"{nbytes} bytes of pinned memory"):
            memory: np.ndarray = self._driver.pagelocked_empty(nbytes, np.uint8)
        self._keep(memory.ctypes.data, memory.base)
        return memory

    def free_pinned(self, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._objects.pop(memory.ctypes.data).free()

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._driver.memcpy_htod_async(address, array, self._objects[stream])

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._driver.memcpy_dtoh_async(array, address, self._objects[stream])

    def create_stream(self) -> int:
        stream = self._driver.Stream(_NON_BLOCKING)
        return self._keep(int(stream.handle), stream)

    def create_event(self) -> int:
        event = self._driver.Event()
        return self._keep(id(event), event)

    def elapsed_ms(self, start: int, stop: int) -> float:
        self._objects[stop].synchronize()
        return float(self._objects[stop].time_since(self._objects[start]))

    @contextlib.contextmanager
    def _explained(self, about: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise DeviceError(f"pycuda failed for {about}: {error}.") from error


_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: pycuda passes it on but has no name for it
