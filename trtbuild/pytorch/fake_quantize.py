"""Freezes the fake quantization of QAT modules: scales stay, observers go, and ONNX can express the rest.

``torch.ao.quantization`` puts a `FakeQuantizeBase` after every quantized tensor, which observes ranges
during training. Without observing it computes ``torch.fake_quantize_*_affine`` with its scale and zero point,
which PyTorch's exporter writes as QuantizeLinear and DequantizeLinear. NVIDIA's ModelOpt and
pytorch-quantization use a ``TensorQuantizer`` instead, which rounds symmetrically with its ``amax``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

from trtbuild.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FrozenFakeQuantize", "freeze_fake_quantize", "shapes_of_fake_quantize"]

_KERNELS = (
    "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_channel_affine_cachemask",
)


class FrozenFakeQuantize(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Rounds to the steps of a fixed scale, per tensor or per slice of `axis`.

    Args:
        scale, zero_point: one value, or one per slice.
        axis: None if there is one scale.
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
        # as Python numbers, since tracing cannot read values of tensors
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
    """Tell ``torch.export`` the output shapes of fake quantization, which torch itself lacks.

    Without them a network with fake quantization cannot be traced with dynamic dims.
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
    """Replace, in place, modules that observe and round by modules that only round; remove disabled ones.

    In a layer that was trained with its norm (torch's fused modules) the norm is folded into the weights.

    Returns:
        The paths of the replaced modules.

    Raises:
        ModelError: a module rounds in a way that INT8 Q/DQ cannot express.
    """
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    # a module may be registered under several paths
    found = [
        (path, one)
        for path, one in module.named_modules(remove_duplicate=False)
        if path and (isinstance(one, FakeQuantizeBase | ObserverBase) or _is_of_nvidia(one))
    ]
    frozen = {one: next(_frozen(one, path), nn.Identity()) for path, one in found}
    done = []
    for path, one in found:
        owner, _, name = path.rpartition(".")
        holder = module.get_submodule(owner)
        if getattr(holder, name, None) is not one:
            continue  # replaced together with its parent
        setattr(holder, name, frozen[one])
        done.append(path)
    _freeze_norms(module)
    return tuple(done)


class _RoundedLayer(nn.Module):  # type: ignore[misc]
    """A convolution or linear layer with rounded weights.

    Args:
        layer: has the weights and the bias.
        rounding: rounds the weights.
        activation: what follows the layer.
    """

    def __init__(self, layer: Any, rounding: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.layer, self.rounding, self.activation = layer, rounding, activation

    def forward(self, values: torch.Tensor) -> Any:
        """Return the activation of the layer's result."""
        layer = self.layer
        apply = F.linear if isinstance(layer, nn.Linear) else layer._conv_forward
        return self.activation(apply(values, self.rounding(layer.weight), layer.bias))


def _freeze_norms(module: nn.Module) -> None:
    """Fold, in place, the norm of each layer that was trained with it into the layer's weights.

    Such a layer computes ``y = norm(layer(x, round(w s)) / s + b)`` with ``s = gamma / sqrt(var + eps)``,
    which is ``layer(x, round(w s)) + s (b - mean) + beta`` (Jacob et al. 2018, arXiv 1712.05877, section
    3.2).
    """
    from torch.ao.nn.intrinsic.qat.modules.conv_fused import _ConvBnNd
    from torch.ao.nn.intrinsic.qat.modules.linear_fused import LinearBn1d

    for path, one in list(module.named_modules()):
        if not isinstance(one, _ConvBnNd | LinearBn1d) or not path:
            continue
        layer, norm = _plain_layer(one), one.bn
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = 0 if one.bias is None else one.bias
        with torch.no_grad():
            layer.weight.copy_(one.weight * scale.reshape(-1, *[1] * (one.weight.ndim - 1)))
            layer.bias.copy_(scale * (bias - norm.running_mean) + norm.bias)
        behind = [nn.ReLU()] if "ReLU" in type(one).__name__ else []
        if hasattr(one, "activation_post_process"):  # in eager mode, called by a hook
            behind.append(one.activation_post_process)
        activation = nn.Sequential(*behind)
        owner, _, name = path.rpartition(".")
        rounded = _RoundedLayer(layer, one.weight_fake_quant, activation)
        setattr(module.get_submodule(owner), name, rounded.train(one.training))


def _plain_layer(fused: Any) -> Any:
    """An unfused layer of the same form with a bias; the caller sets its weights."""
    if isinstance(fused, nn.Linear):
        return nn.Linear(fused.in_features, fused.out_features)
    plain = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[fused.weight.ndim - 2]
    return plain(
        fused.in_channels, fused.out_channels, fused.kernel_size, fused.stride, fused.padding,
        fused.dilation, fused.groups, padding_mode=fused.padding_mode,
    )  # fmt: skip


def _frozen(module: nn.Module, path: str) -> Iterator[nn.Module]:
    if _is_of_nvidia(module):
        yield from _frozen_of_nvidia(module, path)
        return
    enabled = getattr(module, "fake_quant_enabled", None)
    if enabled is None or not bool(enabled.reshape(-1)[0]):
        return
    scale, zero_point = module.scale, module.zero_point
    assert isinstance(scale, torch.Tensor)
    assert isinstance(zero_point, torch.Tensor)
    axis = int(module.ch_axis) if scale.numel() > 1 else None
    low, high = int(module.quant_min), int(module.quant_max)
    yield FrozenFakeQuantize(scale, zero_point, axis, low, high)


def _is_of_nvidia(module: nn.Module) -> bool:
    """Whether it is a quantizer of ModelOpt or pytorch-quantization; neither needs to be installed."""
    return type(module).__name__ == "TensorQuantizer" and hasattr(module, "_num_bits")


def _frozen_of_nvidia(module: Any, path: str) -> Iterator[nn.Module]:
    """The module that replaces a ``TensorQuantizer``; nothing if it is disabled.

    Raises:
        ModelError: it has no scale, or does not round to 8 bits per tensor or per slice of one axis.
    """
    if module._disabled or not getattr(module, "_if_quant", True):
        return
    amax = getattr(module, "_amax", None)
    if amax is None:
        raise ModelError(
            f"'{path}' rounds without a scale of its own: calibrate it before the export."
        )
    wide = [axis for axis, size in enumerate(amax.shape) if size > 1]
    more = ("_block_sizes", "_pre_quant_scale", "_rotate", "_bias")
    if module._num_bits != 8 or len(wide) > 1 or any(_is_set(module, name) for name in more):
        raise ModelError(
            f"'{path}' does something other than round to INT8 with one scale, or one per channel, which "
            "Q/DQ cannot express: export the module with the package that quantized it."
        )
    bound = 255 if module._unsigned else 127
    low = 0 if module._unsigned else -bound if module._narrow_range else -bound - 1
    scale = torch.where(amax > 0, amax, torch.ones_like(amax)).float() / bound
    yield FrozenFakeQuantize(
        scale, torch.zeros(scale.numel()), wide[0] if wide else None, low, bound
    )


def _is_set(module: nn.Module, name: str) -> bool:
    value = getattr(module, name, None)
    return value is not None and value is not False
