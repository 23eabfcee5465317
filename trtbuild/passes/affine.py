"""Folds a per-channel ``y * scale + shift`` after a layer with constant weights into the layer.

The layer is ``y = W·x + b`` with one row of W per output channel, so ``scale * y + shift`` is the
layer with ``W' = scale * W`` and ``b' = scale * b + shift``. The channel is axis 1 of the output. A
ConvTranspose with groups has it on weight axis 1, counted within each group. A Gemm is
``y = alpha * A·B + beta * C``; its new C includes beta. Sums are computed in float64 and rounded
once to the type of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import array
from trtbuild.model.operators import CONVOLUTIONS
from trtbuild.model.qdq import dequantized
from trtbuild.model.shapes import static_dims
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.weights import read_weight, rounded, scale_weight
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["Affine", "channel_vector", "fold_affine", "layer_before", "layer_channels"]

LAYERS = CONVOLUTIONS | {"Gemm"}


@dataclass(frozen=True)
class Affine:
    """``y * scale + shift`` per channel; both float64, of one element or one per channel."""

    scale: NDArray[np.float64] | None = None
    shift: NDArray[np.float64] | None = None


def layer_before(
    value: ir.Value | None, reader: ir.Node, op_types: Collection[str] = LAYERS
) -> ir.Node | None:
    """Return the layer that makes `value` for `reader` alone; None if no such layer makes it.

    Raises:
        Declined: a layer makes it, and it has other readers too.
    """
    layer = maker(value, *op_types)
    if layer is not None and value is not None:
        require_private(value, reader)
    return layer


def layer_channels(layer: ir.Node) -> tuple[int, int]:
    """Return the rank of the output of `layer` and the number of its channels (axis 1).

    Raises:
        Declined: the dims of the weights are unknown.
    """
    shape = static_dims(layer.inputs[1])
    if shape is None or len(shape) < 2:
        raise Declined("the dims of the weights are not known")
    match layer.op_type:
        case "Conv":
            return len(shape), shape[0]
        case "ConvTranspose":
            return len(shape), shape[1] * int(attribute(layer, "group", 1))
        case _:
            return 2, shape[0 if attribute(layer, "transB", 0) else 1]


def channel_vector(
    operand: ir.Value | None, ranks: int, channels: int, axis: int = 1
) -> NDArray[np.float64]:
    """Read a constant that has one value, or one for each channel of a tensor.

    Right-aligned broadcasting against the tensor decides: size 1 everywhere but on the channel axis. ``[C]``
    against NCHW lies along the width, even where W = C.

    Args:
        operand: the constant.
        ranks: rank of the tensor it is combined with.
        channels: size of the channel axis of that tensor.
        axis: the channel axis.

    Raises:
        Declined: it is not constant, not per channel, or makes the result larger.
    """
    content = array(operand)
    if content is None or operand is None:
        raise Declined("the other operand is not constant")
    if content.dtype.kind != "f" and content.dtype.name != "bfloat16":
        raise Declined("integers are not folded into weights")
    if content.ndim > ranks:
        raise Declined(f"'{operand.name}' has a higher rank than the layer")
    padded = (1,) * (ranks - content.ndim) + content.shape
    others = [size for place, size in enumerate(padded) if place != axis]
    if any(size != 1 for size in others):
        raise Declined(f"'{operand.name}' of shape {list(content.shape)} is not per channel")
    if padded[axis] not in (1, channels):
        raise Declined(
            f"'{operand.name}' has {counted(padded[axis], 'value')} for {counted(channels, 'channel')}"
        )
    return content.reshape(-1).astype(np.float64)


def fold_affine(layer: ir.Node, affine: Affine, edit: Editor) -> None:
    """Fold `affine` into `layer`, a Conv, ConvTranspose or Gemm, which gets copies of its weights.

    Raises:
        Declined: weights or bias are not constant, or the result is not finite in their type.
    """
    _, channels = layer_channels(layer)
    shift = _shift(layer, affine, channels)
    bias = None if shift is None else rounded(shift, _float_dtype(layer))
    if affine.scale is not None:
        factors = np.broadcast_to(affine.scale, (channels,))
        layer.replace_input_with(1, scale_weight(layer, _along_weight(layer, factors), edit))
    if bias is not None:
        _set_bias(layer, bias, edit)


def _float_dtype(layer: ir.Node) -> np.dtype[Any]:
    weight = layer.inputs[1]
    if weight is None or weight.dtype is None or not weight.dtype.is_floating_point():
        raise Declined("the weights are not floats")
    return weight.dtype.numpy()


def _along_weight(layer: ir.Node, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reshape one factor per output channel so that it broadcasts against the weight."""
    shape = read_weight(layer.inputs[1]).shape
    match layer.op_type:
        case "Conv":
            return factors.reshape(-1, *(1,) * (len(shape) - 1))
        case "ConvTranspose":
            groups = int(attribute(layer, "group", 1))
            per_group = factors.reshape(groups, 1, shape[1])
            if groups > 1:
                per_group = np.repeat(per_group, shape[0] // groups, axis=1)
            return per_group.reshape(-1, shape[1], *(1,) * (len(shape) - 2))
        case _:
            return factors.reshape((-1, 1) if attribute(layer, "transB", 0) else (1, -1))


def _shift(layer: ir.Node, affine: Affine, channels: int) -> NDArray[np.float64] | None:
    """Return the new bias, one value per channel; None where the layer neither has nor needs one."""
    bias = _bias(layer, channels)
    if bias is None:
        return None if affine.shift is None else np.broadcast_to(affine.shift, (channels,))
    scaled = bias if affine.scale is None else bias * affine.scale
    total = scaled if affine.shift is None else scaled + affine.shift
    return np.broadcast_to(total, (channels,))


def _bias(layer: ir.Node, channels: int) -> NDArray[np.float64] | None:
    operand = input_at(layer, 2)
    if operand is None:
        return None
    content = dequantized(operand)
    if content is None:
        raise Declined(f"the bias '{operand.name}' is not constant")
    if layer.op_type != "Gemm":
        return content.reshape(-1).astype(np.float64)
    padded = (1,) * (2 - content.ndim) + content.shape
    if padded[0] != 1 or padded[1] not in (1, channels):
        raise Declined(f"the addend '{operand.name}' is not a row")
    return content.reshape(-1).astype(np.float64) * float(attribute(layer, "beta", 1.0))


def _set_bias(layer: ir.Node, bias: NDArray[Any], edit: Editor) -> None:
    old = input_at(layer, 2)
    hint = old.name if old is not None else f"{layer.outputs[0].name}.bias"
    value = edit.constant(bias, near=layer, hint=hint or "bias")
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, value)
    layer.attributes.pop("beta", None)
