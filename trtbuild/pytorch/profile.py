"""Time per layer of a module, from torch's own profiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from trtbuild.pytorch.inputs import BoundInputs, bind_inputs, sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from trtbuild.pytorch.spec import InputSpec

__all__ = ["LayerTime", "profile_layers"]

_PREFIX = "layer:"


@dataclass(frozen=True)
class LayerTime:
    """Time of one leaf module in one run of the network.

    Attributes:
        path: module path.
        kind: its class.
        num_calls: calls in one run.
        cpu_ms: milliseconds on the CPU, what it calls included.
        device_ms: milliseconds of its kernels on the GPU; 0 without one.
        share: of the sum over all leaf modules, by device time if there is any.
    """

    path: str
    kind: str
    num_calls: int
    cpu_ms: float
    device_ms: float
    share: float


def profile_layers(
    module: nn.Module,
    inputs: Sequence[InputSpec] | BoundInputs,
    *,
    runs: int = 10,
    warmup: int = 2,
) -> tuple[LayerTime, ...]:
    """Profile the leaf modules of `module` on its device; the slowest first.

    Args:
        module: in eval mode. Its transformer fast paths are off while it is profiled.
        inputs: one sample input each.
        runs: runs that are averaged.
        warmup: runs before those.
    """
    bound = inputs if isinstance(inputs, BoundInputs) else bind_inputs(module, inputs)
    leaves = {path: m for path, m in module.named_modules() if path and not list(m.children())}
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    given, keywords = sample(bound, seed=0)
    arguments = tuple(value.to(device) for value in given)
    named = {name: value.to(device) for name, value in keywords.items()}
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    handles = [handle for path, leaf in leaves.items() for handle in _marked(path, leaf)]
    try:
        with torch.no_grad():
            for _ in range(warmup):
                module(*arguments, **named)
            with profile(activities=kinds) as profiler:
                for _ in range(runs):
                    module(*arguments, **named)
    finally:
        for handle in handles:
            handle.remove()
    return _times(profiler.key_averages(), leaves, runs)


def _marked(path: str, leaf: nn.Module) -> tuple[Any, Any]:
    """Hooks that wrap every call of `leaf` in a region of the profiler."""
    open_regions: list[Any] = []

    def enter(*_: Any) -> None:
        region = record_function(_PREFIX + path)
        region.__enter__()
        open_regions.append(region)

    def leave(*_: Any) -> None:
        open_regions.pop().__exit__(None, None, None)

    return leaf.register_forward_pre_hook(enter), leaf.register_forward_hook(leave)


def _times(events: Any, leaves: dict[str, nn.Module], runs: int) -> tuple[LayerTime, ...]:
    own = {
        event.key.removeprefix(_PREFIX): event for event in events if event.key.startswith(_PREFIX)
    }
    on_device = any(event.device_time_total for event in own.values())

    def total(event: Any) -> float:
        return float(event.device_time_total if on_device else event.cpu_time_total)

    everything = sum(total(event) for event in own.values()) or 1.0
    found = [
        LayerTime(
            path,
            type(leaves[path]).__name__,
            event.count // runs,
            event.cpu_time_total / runs / 1000,
            event.device_time_total / runs / 1000,
            total(event) / everything,
        )
        for path, event in own.items()
    ]
    return tuple(sorted(found, key=lambda time: time.share, reverse=True))
