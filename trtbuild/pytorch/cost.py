"""The cost of a module: multiply-accumulates and parameters, and the time of each layer.

Products are counted on the graph of ``torch.export``, so functional attention counts, and norms do not (they
are folded). The counts are per sample: the batch size is divided out. Times come from torch's profiler.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.profiler import ProfilerActivity, profile, record_function

from trtbuild.errors import ModelError
from trtbuild.pytorch.aten import calls, name_of
from trtbuild.pytorch.fold.layers import LayerCall
from trtbuild.pytorch.inputs import BoundInputs, bind_inputs, sample
from trtbuild.pytorch.tracing import capture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Node

    from trtbuild.pytorch.spec import InputSpec

__all__ = ["Cost", "LayerTime", "cost_of", "count_cost", "profile_layers"]


_MATRIX_PRODUCTS = frozenset(("matmul", "mm", "bmm"))


@dataclass(frozen=True)
class Cost:
    """Cost of one sample.

    Attributes:
        macs: multiply-accumulates; None if unknown.
        parameters: number of trained values.
    """

    macs: int | None
    parameters: int


def count_cost(module: nn.Module, inputs: BoundInputs) -> Cost:
    """Count convolutions, linear layers, matrix products and attention; everything else is free."""
    try:
        program = capture(module, inputs)
    except ModelError:
        return Cost(None, sum(tensor.numel() for tensor in module.parameters()))
    return cost_of(program, module, inputs)


def cost_of(program: ExportedProgram, module: nn.Module, inputs: BoundInputs) -> Cost:
    """Return `count_cost` for a module whose exported graph exists already."""
    parameters = sum(tensor.numel() for tensor in module.parameters())
    batch = max(inputs.specs[0].dims[0] if inputs.specs and inputs.specs[0].dims else 1, 1)
    try:
        macs = sum(_macs(node) for node in calls(program)) // batch
    except GuardOnDataDependentSymNode:  # sizes that depend on values are unknown
        macs = None
    return Cost(macs, parameters)


def _macs(node: Node) -> int:
    layer = LayerCall.of(node)
    if layer is not None:
        weight = _dims(layer.weight)
        # Each output value takes one product per weight of its channel. In a transposed convolution each
        # input value takes one product per weight of its channel.
        values = _dims(layer.input) if layer.transposed else _dims(node)
        return math.prod(values) * math.prod(weight[1:])
    name = name_of(node)
    if name in _MATRIX_PRODUCTS:
        return math.prod(_dims(node)) * _dims(node.args[0])[-1]
    if name == "addmm":
        return math.prod(_dims(node)) * _dims(node.args[1])[-1]
    if name == "scaled_dot_product_attention":
        query, key = _dims(node.args[0]), _dims(node.args[1])
        return 2 * math.prod(query) * key[-2]
    return 0


def _dims(node: Any) -> tuple[int, ...]:
    return tuple(int(dim) for dim in node.meta["val"].shape)


_PREFIX = "layer:"


@dataclass(frozen=True)
class LayerTime:
    """Time of one leaf module in one run of the network.

    Attributes:
        path: module path.
        kind: its class.
        num_calls: calls in one run.
        cpu_ms: milliseconds on the CPU, including what the module calls.
        device_ms: milliseconds of its kernels on the GPU; 0 without one.
        share: of the total over all leaf modules, by device time if there is any.
    """

    path: str
    kind: str
    num_calls: int
    cpu_ms: float
    device_ms: float
    share: float


def profile_layers(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    *,
    runs: int = 10,
    warmup: int = 2,
) -> tuple[LayerTime, ...]:
    """Profile the leaf modules of `module` on its device; the slowest first.

    Args:
        module: in eval mode. Its transformer fast paths are off during profiling.
        inputs: the sample inputs.
        runs: number of runs that are averaged.
        warmup: runs before those.
    """
    bound = bind_inputs(module, inputs)
    leaves = {path: m for path, m in module.named_modules() if path and not list(m.children())}
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    given, keywords = sample(bound, seed=0)
    arguments = tuple(value.to(device) for value in given)
    named = {name: value.to(device) for name, value in keywords.items()}
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for path, leaf in leaves.items():
            for hook in _marked(path, leaf):
                hooks.enter_context(hook)
        for _ in range(warmup):
            module(*arguments, **named)
        with profile(activities=kinds) as profiler:
            for _ in range(runs):
                module(*arguments, **named)
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
