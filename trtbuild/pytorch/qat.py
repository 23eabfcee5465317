"""Quantization-aware training: a module that rounds where TensorRT does, for the user's own training loop.

Every layer that runs in INT8 gets its input and its weight rounded to the steps of a scale, as in the
calibrated Q/DQ network. Scales of activations are trained with the weights (Esser et al. 2020, "Learned
Step Size Quantization", arXiv 1902.08153); those of weights follow the amax of each output
channel. The gradient of rounding is the identity (Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

from trtbuild.errors import ModelError
from trtbuild.model.qdq import pair_behind, weight_behind
from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.fake_quantize import FrozenFakeQuantize
from trtbuild.pytorch.fold.on_module import is_plain_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = [
    "Place",
    "QuantizedLayer",
    "freeze_quantized_layers",
    "places_of",
    "prepare_qat",
    "trained_scales",
]

_LOW, _HIGH = -128, 127
_TRANSPOSED = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}


@dataclass(frozen=True)
class Place:
    """Where an activation is rounded before a layer.

    Attributes:
        tensor: name of the rounded tensor; layers that read the same tensor share its scale.
        scale: the calibrated step size.
    """

    tensor: str
    scale: float


class Rounding(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Rounds an activation to 8-bit steps of a trained scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return `values` rounded and clipped; gradients pass where nothing is clipped."""
        # the gradient of a step size sums over the whole tensor; the factor brings it down to that of a
        # weight
        share = 1 / (max(values[0].numel(), 1) * _HIGH) ** 0.5
        size = self.scale.abs().clamp_min(torch.finfo(torch.float32).tiny)
        size = size * share + (size * (1 - share)).detach()
        return _rounded(values, size)


class WeightRounding(nn.Module):  # type: ignore[misc]
    """Rounds a weight to 8-bit steps, with a scale per output channel from its amax."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the step size of each output channel."""
        others = [axis for axis in range(weight.ndim) if axis != self.axis]
        largest = weight.detach().abs().amax(others)
        return torch.where(largest > 0, largest, torch.ones_like(largest)) / _HIGH

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return `weight` rounded."""
        shape = [1] * weight.ndim
        shape[self.axis] = -1
        return _rounded(weight, self.scales(weight).view(shape))


def _rounded(values: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    steps = (values / size).clamp(_LOW, _HIGH)
    return (steps + (steps.round() - steps).detach()) * size


class QuantizedLayer(nn.Module):  # type: ignore[misc]
    """A convolution or linear layer with its input and its weight rounded.

    Args:
        layer: the layer, whose parameters are still trained.
        rounding: rounds its input.
    """

    def __init__(self, layer: nn.Module, rounding: nn.Module) -> None:
        super().__init__()
        self.layer, self.rounding = layer, rounding
        self.weight_rounding: nn.Module = WeightRounding(int(type(layer) in _TRANSPOSED))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the layer's result for the rounded input and weight."""
        layer = self.layer
        values, weight = self.rounding(values), self.weight_rounding(layer.weight)
        if isinstance(layer, nn.Linear):
            return F.linear(values, weight, layer.bias)
        transposed = _TRANSPOSED.get(type(layer))
        if transposed is None:
            result: torch.Tensor = layer._conv_forward(values, weight, layer.bias)
            return result
        return transposed(
            values,
            weight,
            layer.bias,
            layer.stride,
            layer.padding,
            layer.output_padding,
            layer.groups,
            layer.dilation,
        )


def places_of(quantized: ir.Model) -> dict[str, Place]:
    """Return where a Q/DQ network rounds the inputs of layers with weights: node name -> place."""
    found = {}
    for node in quantized.graph:
        pair = pair_behind(node.inputs[0]) if len(node.inputs) > 1 else None
        if pair is not None and node.name and weight_behind(node.inputs[1]) is not None:
            found[node.name] = Place(str(pair.source.name), pair.scale)
    return found


def prepare_qat(module: nn.Module, places: Mapping[str, Place]) -> tuple[nn.Module, list[str]]:
    """Return a copy of `module` that rounds at `places`, and the paths of the rounded layers.

    Args:
        module: with its norms folded, as it was when the network of `places` was exported.
        places: module path -> place, see `places_of`; paths that are not plain layers of the module are
            skipped.

    Raises:
        ModelError: no place belongs to a layer of the module.
    """
    copied = copy_module(module)
    layers = dict(copied.named_modules(remove_duplicate=False))
    shared: dict[str, Rounding] = {}
    wrapped: dict[int, QuantizedLayer] = {}
    done = []
    for path, place in places.items():
        layer = layers.get(path)
        if layer is None or not path or not is_plain_layer(layer):
            continue
        rounding = shared.setdefault(place.tensor, Rounding(place.scale))
        wrapper = wrapped.setdefault(id(layer), QuantizedLayer(layer, rounding))
        wrapper.train(layer.training)
        owner, _, name = path.rpartition(".")
        copied.get_submodule(owner)._modules[name] = wrapper
        done.append(path)
    if not done:
        raise ModelError(
            "none of the layers that run in INT8 is a plain convolution or linear layer of the module, so "
            "there is nothing to train with rounding."
        )
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied, done


def trained_scales(module: nn.Module) -> dict[str, float]:
    """Return path -> current input scale of each `QuantizedLayer`."""
    return {
        path: float(layer.rounding.scale.detach().abs())
        for path, layer in module.named_modules()
        if isinstance(layer, QuantizedLayer)
    }


def freeze_quantized_layers(module: nn.Module) -> None:
    """Replace trained roundings, in place, by fixed ones that the exporter writes as Q/DQ."""
    frozen: dict[int, nn.Module] = {}
    for layer in [one for one in module.modules() if isinstance(one, QuantizedLayer)]:
        rounding, weights = layer.rounding, layer.weight_rounding
        if isinstance(rounding, Rounding):
            scale = rounding.scale.detach().abs()
            one = FrozenFakeQuantize(scale, torch.zeros(1), None, _LOW, _HIGH)
            layer.rounding = frozen.setdefault(id(rounding), one)
        if isinstance(weights, WeightRounding):
            scales = weights.scales(layer.layer.weight)
            layer.weight_rounding = FrozenFakeQuantize(
                scales, torch.zeros_like(scales), weights.axis, _LOW, _HIGH
            )
