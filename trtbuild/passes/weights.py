"""Constant weights of a layer: floats, or integers with a DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, constant_tensor
from trtbuild.model.qdq import along_axis
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["Weight", "read_weight", "rounded", "scale_weight"]


@dataclass(frozen=True)
class Weight:
    """A constant weight.

    Attributes:
        value: the operand of the layer.
        dequantize: the DequantizeLinear that makes it; None for plain floats.
        shape: its dims.
        float_dtype: type of the weight as the layer reads it.
    """

    value: ir.Value
    dequantize: ir.Node | None
    shape: tuple[int, ...]
    float_dtype: np.dtype[Any]


def read_weight(value: ir.Value | None) -> Weight:
    """Return what a weight operand consists of, without reading its data.

    Raises:
        Declined: it is not constant, or neither float nor dequantized integers.
    """
    dequantize = maker(value, "DequantizeLinear")
    held = value if dequantize is None else dequantize.inputs[0]
    tensor = constant_tensor(held)
    if value is None or tensor is None:
        raise Declined("the weights are not constant")
    typed = tensor if dequantize is None else constant_tensor(dequantize.inputs[1])
    if typed is None or not typed.dtype.is_floating_point():
        raise Declined("the weights are not floats")
    shape = tuple(int(dim) for dim in tensor.shape.numpy())
    return Weight(value, dequantize, shape, typed.dtype.numpy())


def scale_weight(
    layer: ir.Node, factors: NDArray[np.float64], edit: Editor, *, place: int = 1
) -> ir.Value:
    """Make a copy of operand `place` of `layer` times `factors`, which broadcast against it.

    Integers stay integers: their scales take the factors and stay positive; for a negative factor the
    integers are negated.

    Raises:
        Declined: the product cannot be represented.
    """
    weight = read_weight(layer.inputs[place])
    name = weight.value.name or "weight"
    if weight.dequantize is not None:
        return _scale_integers(layer, weight.dequantize, factors, edit)
    content = array(weight.value)
    assert content is not None, "read_weight saw a constant"
    product = rounded(content.astype(np.float64) * factors, weight.float_dtype)
    return edit.constant(product, near=layer, hint=name)


def _scale_integers(
    layer: ir.Node, dequantize: ir.Node, factors: NDArray[np.float64], edit: Editor
) -> ir.Value:
    content, scale = array(dequantize.inputs[0]), array(dequantize.inputs[1])
    zero_operand = input_at(dequantize, 2)
    zero = array(zero_operand)
    if content is None or scale is None or (zero_operand is not None and zero is None):
        raise Declined("scale or zero point of the integer weights are not constant")
    axis = _factor_axis(factors, dequantize, scale, content.ndim)
    product = _scales(scale, factors, axis, content.shape)
    if not (np.isfinite(product) & (product != 0)).all():
        raise Declined("a channel is scaled to zero, which has no int8 scale")
    turned = _turn_over(content, zero, np.asarray(product < 0), axis or 0)
    scales = rounded(np.abs(product), scale.dtype)
    name = dequantize.inputs[0].name if dequantize.inputs[0] is not None else "weight"
    operands = [
        edit.constant(turned, near=layer, hint=name or "weight"),
        edit.constant(scales, near=layer, hint=f"{name}_scale"),
    ]
    if zero is not None:
        zeros = np.broadcast_to(zero.reshape(-1) if zero.size > 1 else zero, product.shape).copy()
        operands.append(edit.constant(zeros, near=layer, hint=f"{name}_zero_point"))
    attributes = {"axis": axis, "output_dtype": attribute(dequantize, "output_dtype")}
    return edit.add(
        "DequantizeLinear", operands, attributes, before=layer, like=dequantize.outputs[0]
    )


def _scales(
    scale: NDArray[Any], factors: NDArray[np.float64], axis: int | None, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Multiply scales by factors; the result has one number, or one for each slice of `axis`."""
    if axis is None:
        return np.asarray(scale.astype(np.float64) * factors.reshape(-1)[0])
    slices = [shape[axis] if place == axis else 1 for place in range(len(shape))]
    return np.broadcast_to(along_axis(scale, axis, len(shape)) * factors, slices).reshape(-1)


def _factor_axis(
    factors: NDArray[np.float64], dequantize: ir.Node, scale: NDArray[Any], ndim: int
) -> int | None:
    """Return the one axis along which scale times factors varies; None where it does not vary."""
    if attribute(dequantize, "block_size", 0):
        raise Declined("the integer weights are scaled in blocks")
    varying = {place for place, size in enumerate(factors.shape) if size != 1}
    if scale.size > 1:
        varying.add(normal_axis(int(attribute(dequantize, "axis", 1)), ndim))
    if len(varying) > 1:
        raise Declined("the integer weights have their scales along another axis")
    return varying.pop() if varying else None


def _turn_over(
    content: NDArray[Any], zero: NDArray[Any] | None, negative: NDArray[np.bool_], axis: int
) -> NDArray[Any]:
    """Negate the integers of the slices of `axis` that `negative` marks."""
    if not negative.any():
        return content
    if content.dtype.kind != "i" or (zero is not None and zero.any()):
        raise Declined("integer weights with a zero point cannot be negated")
    mask = along_axis(negative, axis, content.ndim)
    if np.any(mask & (content == np.iinfo(content.dtype).min)):
        raise Declined(f"{np.iinfo(content.dtype).min} has no negative in {content.dtype}")
    return np.where(mask, -content, content)


def rounded(content: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to `dtype`.

    Raises:
        Declined: a value is not finite in `dtype`.
    """
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(content).astype(dtype)
    if not np.isfinite(result.astype(np.float64)).all():
        raise Declined(f"the folded constants are not finite in {dtype}")
    return result
