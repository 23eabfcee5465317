"""A norm with fixed statistics as scale and shift, and its fold into a layer, in float64.

    norm(x) = (x - mean) / sqrt(var + eps) * weight + bias  =  scale * x + shift
    scale   = weight / sqrt(var + eps)
    shift   = bias - mean * scale

A layer is ``y = W * x + b``. A norm after it scales outputs, a norm before it scales inputs:

    after:   scale * (W * x + b) + shift    =  (scale W) * x + (scale b + shift)
    before:  W * (scale * x + shift) + b    =  (W scale) * x + (W * shift + b)

``before`` is valid only without zero padding: the border would have 0 instead of the shift. Weights
are ``[out, in/groups, k...]``, those of a transposed convolution ``[in, out/groups, k...]``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trtbuild.pytorch.aten import name_of, shape
from trtbuild.wording import counted

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

__all__ = [
    "LAYER_OPERATORS",
    "TOLERANCE",
    "Affine",
    "CannotFoldError",
    "LayerCall",
    "Weights",
    "arguments",
    "norm_affine",
    "scaled_after",
    "scaled_before",
]

TOLERANCE = 1e-9
"""In float64 a correct fold differs by about 1e-15, a wrong one by 1e-1, at any depth."""


class CannotFoldError(Exception):
    """A norm cannot be folded; the text is the reason in the report. Only used inside this package.

    `norm` is the norm's path, if the code that catches the error cannot know it.
    """

    def __init__(self, reason: str, norm: str = "") -> None:
        super().__init__(reason)
        self.norm = norm


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift`` per channel: two float64 tensors ``[channels]``."""

    scale: torch.Tensor
    shift: torch.Tensor


def norm_affine(
    mean: torch.Tensor,
    var: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> Affine:
    """Return the affine form of a norm with these statistics; absent weight is 1, absent bias is 0.

    Raises:
        CannotFoldError: the statistics, scale or shift are not finite, or variance + eps is not positive.
    """
    mean, var = mean.detach().double(), var.detach().double()
    if not (mean.isfinite().all() and var.isfinite().all()):
        raise CannotFoldError("its running statistics are not finite")
    if (var + eps <= 0).any():
        raise CannotFoldError("a running variance plus eps is not positive")
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach().double()
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias.detach().double()
    if not (scale.isfinite().all() and shift.isfinite().all()):
        raise CannotFoldError("its scale or shift is not finite")
    return Affine(scale, shift)


LAYER_OPERATORS = frozenset(
    (
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "linear",
    )
)


@dataclass(frozen=True)
class Weights:
    """A layer's weight, its bias ``[out]`` or None, and their layout."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    groups: int = 1
    transposed: bool = False

    def to(self, dtype: torch.dtype) -> Weights:
        """These weights in another type.

        Raises:
            CannotFoldError: a value is not finite, in float64 or in `dtype`.
        """
        weight = self.weight.to(dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        if not weight.isfinite().all() or (bias is not None and not bias.isfinite().all()):
            raise CannotFoldError(f"the folded weights are not finite in {dtype}")
        return replace(self, weight=weight, bias=bias)


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer in the graph."""

    node: Node
    weight: Node
    bias: Node | None
    groups: int
    transposed: bool
    spatial: int

    @classmethod
    def of(cls, node: Node) -> LayerCall | None:
        """Read a graph node; None if it is not a layer, or its number of groups depends on the batch."""
        name = name_of(node)
        if name not in LAYER_OPERATORS:
            return None
        given = arguments(node)
        if not isinstance(given.get("groups", 1), int):
            return None
        spatial = 0 if name == "linear" else int(name[-2])
        return cls(
            node,
            given["weight"],
            given["bias"],
            given.get("groups", 1),
            name.startswith("conv_transpose"),
            spatial,
        )

    @property
    def input(self) -> Node:
        """The node that makes the layer's input."""
        value: Node = self.node.args[0]
        return value

    @property
    def channel_axis(self) -> int:
        """Axis of the channels, in input and output alike."""
        dims = shape(self.node)
        assert dims is not None
        return len(dims) - 1 - self.spatial

    def pads_with_zeros(self) -> bool:
        """Return whether the layer pads its input with zeros."""
        padding = arguments(self.node).get("padding", 0)
        if isinstance(padding, str):
            kernel = (shape(self.weight) or ())[2:]
            return padding == "same" and any(size != 1 for size in kernel)
        return any(padding) if isinstance(padding, list | tuple) else bool(padding)


def arguments(node: Node) -> dict[str, Any]:
    """Return a node's arguments by the names in the operator's schema, with defaults."""
    schema = node.target._schema.arguments
    given = {argument.name: argument.default_value for argument in schema}
    given.update(zip((argument.name for argument in schema), node.args))
    given.update(node.kwargs)
    return given


def scaled_after(layer: Weights, norm: Affine) -> Weights:
    """Return the layer followed by the norm as one layer, in float64.

    Raises:
        CannotFoldError: the norm and the layer's output differ in their number of channels.
    """
    weight = layer.weight.detach().double()
    outputs = weight.shape[1] * layer.groups if layer.transposed else weight.shape[0]
    if outputs != norm.scale.numel():
        raise CannotFoldError(
            f"it has {counted(norm.scale.numel(), 'channel')}, the layer {counted(outputs, 'output')}"
        )
    if layer.transposed:
        grouped = weight.unflatten(0, (layer.groups, -1))  # [g, in/g, out/g, k...]
        scale = norm.scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        weight = (grouped * scale).flatten(0, 1)
    else:
        weight = weight * norm.scale.view(-1, *[1] * (weight.dim() - 1))
    bias = (
        norm.shift if layer.bias is None else layer.bias.detach().double() * norm.scale + norm.shift
    )
    return Weights(weight, bias, layer.groups, layer.transposed)


def scaled_before(layer: Weights, norm: Affine) -> Weights:
    """Return the norm followed by the layer (convolution or linear) as one layer, in float64.

    Raises:
        CannotFoldError: the norm and the layer's input differ in their number of channels, or the layer is a
            transposed convolution.
    """
    weight = layer.weight.detach().double()
    inputs = weight.shape[1] * layer.groups
    if layer.transposed or inputs != norm.scale.numel():
        raise CannotFoldError(
            f"it has {counted(norm.scale.numel(), 'channel')}, the layer {counted(inputs, 'input')}"
        )
    grouped = weight.unflatten(0, (layer.groups, -1))  # [g, out/g, in/g, k...]
    view = (layer.groups, 1, -1, *[1] * (weight.dim() - 2))
    added = (grouped * norm.shift.view(view)).flatten(2).sum(2).flatten()
    bias = added if layer.bias is None else layer.bias.detach().double() + added
    return Weights((grouped * norm.scale.view(view)).flatten(0, 1), bias, layer.groups)
