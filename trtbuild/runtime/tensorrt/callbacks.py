"""Callbacks of TensorRT at run time: memory for outputs of unknown size, and times of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtbuild.runtime.cuda import Buffer, Device
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["make_allocator", "make_profiler"]


def make_allocator(tensorrt: TensorRT, device: Device) -> Any:
    """Make an ``IOutputAllocator`` for one output.

    After an execution, read its attributes: ``buffer`` (the memory, at least one byte), ``shape`` and
    ``error`` (an error in a callback, which TensorRT would hide; None if there was none).
    """

    class Allocator(tensorrt.module.IOutputAllocator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.buffer: Buffer | None = None
            self.shape: tuple[int, ...] = ()
            self.error: Exception | None = None

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int | None:
            """Return the address of at least `size` bytes; None tells TensorRT that there is no memory."""
            del name, memory, alignment, stream  # CUDA aligns to 256 bytes, as TensorRT asks
            try:
                if self.buffer is None or self.buffer.nbytes < size:
                    if self.buffer is not None:
                        self.buffer.free()
                        self.buffer = None
                    self.buffer = device.allocate(size)
            except Exception as error:  # noqa: BLE001  raised again after the execution
                self.error = error
                return None
            return self.buffer.address

        def notify_shape(self, name: str, shape: Any) -> None:
            """Keep the actual shape of the output."""
            del name
            self.shape = tuple(int(extent) for extent in shape)

    return Allocator()


def make_profiler(tensorrt: TensorRT) -> Any:
    """Make an ``IProfiler`` whose ``layers`` holds layer -> milliseconds, summed since it was emptied."""

    class Profiler(tensorrt.module.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Add TensorRT's time for a layer."""
            self.layers[layer_name] = self.layers.get(layer_name, 0.0) + float(ms)

    return Profiler()
