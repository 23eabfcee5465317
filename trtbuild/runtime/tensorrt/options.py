"""How a plan is opened and run, as one value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OpenOptions"]


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a plan.

    Attributes:
        cuda: provider of device memory, see `trtbuild.runtime.cuda.PROVIDERS`.
        device: number of the GPU.
        allow_host_code: let plans run host code, as version compatible ones do, when they are opened.
        weight_budget: bytes of device memory for streamed weights when the plan is opened; None for
            TensorRT's choice.
        cuda_graph: replay executions of one shape as a CUDA graph.
    """

    cuda: str = "auto"
    device: int = 0
    allow_host_code: bool = False
    weight_budget: int | None = None
    cuda_graph: bool = False
