"""Modules of quantization-aware training keep their scales: as operators that ONNX has, without observers.

``torch.ao.quantization`` puts a `FakeQuantizeBase` behind every quantized tensor, which watches ranges while
it trains. What it computes when it watches no more is ``torch.fake_quantize_*_affine`` with its scale and
zero point, which the exporter of PyTorch writes as QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FrozenFakeQuantize", "freeze_fake_quantize", "shapes_of_fake_quantize"]

_KERNELS = (
    "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_channel_affine_cachemask",
)


class FrozenFakeQuantize(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Rounds to the steps of a scale, which is fixed; per tensor, or per slice of `axis`.

    Args:
        scale, zero_point: one value, or one per slice.
        axis: None for one value.
        low, high: the smallest and largest step.
    """

    def __init__(
        self,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        axis: int | None,
        low: int,
        high: int,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().to(torch.float32).reshape(-1))
        self.register_buffer("zero_point", zero_point.detach().to(torch.int32).reshape(-1))
        self.axis, self.low, self.high = axis, low, high
        # numbers, so that tracing meets no value of a tensor
        self._scale, self._zero = float(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return `values` rounded and clipped."""
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                values, self._scale, self._zero, self.low, self.high
            )
        return torch.fake_quantize_per_channel_affine(
            values, self.scale, self.zero_point, self.axis, self.low, self.high
        )


@contextlib.contextmanager
def shapes_of_fake_quantize() -> Iterator[None]:
    """Let ``torch.export`` know the shapes of what fake quantization gives, which torch itself lacks.

    Without them a network that rounds cannot be traced with dynamic dims.
    """
    known = [
        name
        for name in _KERNELS
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta")
    ]
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in _KERNELS:
            if name not in known:
                library.impl(name, _like_input, "Meta")
        yield


def _like_input(values: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(values), torch.empty_like(values, dtype=torch.bool)


def freeze_fake_quantize(module: nn.Module) -> tuple[str, ...]:
    """Replace, in place, what watches and rounds by what rounds alone; what is switched off goes.

    Returns:
        The paths of what was replaced.
    """
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    found = [
        (path, one)
        for path, one in module.named_modules()
        if isinstance(one, FakeQuantizeBase | ObserverBase) and path
    ]
    done = []
    for path, one in found:
        owner, _, name = path.rpartition(".")
        holder = module.get_submodule(owner)
        if getattr(holder, name, None) is not one:
            continue  # it went with the one that held it
        setattr(holder, name, next(_frozen(one), nn.Identity()))
        done.append(path)
    return tuple(done)


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    enabled = getattr(module, "fake_quant_enabled", None)
    if enabled is None or not bool(enabled.reshape(-1)[0]):
        return
    scale, zero_point = module.scale, module.zero_point
    assert isinstance(scale, torch.Tensor)
    assert isinstance(zero_point, torch.Tensor)
    axis = int(module.ch_axis) if scale.numel() > 1 else None
    low, high = int(module.quant_min), int(module.quant_max)
    yield FrozenFakeQuantize(scale, zero_point, axis, low, high)
