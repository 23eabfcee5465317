"""TensorRT's profiler: it is told how long each layer of an execution took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["make_profiler"]


def make_profiler(tensorrt: TensorRT) -> Any:
    """Make an ``IProfiler`` whose ``layers`` holds layer -> milliseconds of what ran since it was emptied."""

    class Profiler(tensorrt.module.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Keep what TensorRT tells of a layer."""
            self.layers[layer_name] = self.layers.get(layer_name, 0.0) + float(ms)

    return Profiler()
