"""INT8 weights: ``scale = amax / 127`` per channel or per tensor, rounded half to even."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import ModelError
from trtbuild.plan import INT8_LIMIT
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "check_finite",
    "quantize_bias",
    "quantize_weight",
    "scales_that_hold",
    "steps_by_blocks",
    "weight_scales",
]

# Most steps of a bias: half of int32, which leaves the other half to the sum of products.
_MOST_STEPS = 2.0**30

# Values of a weight that are rounded at once, so that they stay in the cache.
_IN_CACHE = 1 << 16


def check_finite(weight: np.ndarray, name: str) -> None:
    """Check that every value of a weight is finite.

    Raises:
        ModelError: it holds NaN or infinity.
    """
    finite = np.isfinite(weight)
    if not finite.all():
        raise ModelError(
            f"the weight '{name}' holds NaN or infinity in {counted(int((~finite).sum()), 'place')}; "
            "export the network again from a sound checkpoint."
        )


def weight_scales(weight: np.ndarray, axis: int | None, name: str) -> np.ndarray:
    """Return the scales of a float weight: float32, shape ``[weight.shape[axis]]``, or ``[]`` for axis None.

    An all-zero channel gets scale 1: it is exact with any scale, and TensorRT rejects a scale of zero.

    Raises:
        ModelError: the weight holds NaN or infinity.
    """
    values = weight.astype(np.float32, copy=False)
    others = tuple(i for i in range(values.ndim) if i != axis) if axis is not None else None
    amax = np.maximum(values.max(axis=others), -values.min(axis=others))
    if not np.isfinite(amax).all():  # cheaper than testing every value
        check_finite(weight, name)
    scales = amax / np.float32(INT8_LIMIT)
    # a scale below the smallest normal float32 would divide to infinity
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    return np.asarray(np.where(amax > 0, scales, 1), dtype=np.float32)


def quantize_weight(weight: np.ndarray, scales: np.ndarray, axis: int | None) -> np.ndarray:
    """Round ``weight / scale`` half to even into [-127, 127], int8, same shape."""
    steps, start = np.empty(weight.shape, np.int8), 0
    for block in steps_by_blocks(weight, scales, axis):
        steps[start : start + len(block)] = block
        start += len(block)
    return steps


def steps_by_blocks(
    weight: np.ndarray, scales: np.ndarray, axis: int | None
) -> Iterator[np.ndarray]:
    """Yield what `quantize_weight` returns, some rows at a time."""
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    divisors = np.broadcast_to(scales.reshape(shape), weight.shape)
    rows = max(1, _IN_CACHE * len(weight) // max(1, weight.size))
    for start in range(0, len(weight), rows):
        some = slice(start, start + rows)
        exact = weight[some].astype(np.float32, copy=False) / divisors[some]
        np.rint(exact, out=exact)
        yield np.clip(exact, -INT8_LIMIT, INT8_LIMIT, out=exact).astype(np.int8)


def scales_that_hold(
    bias: np.ndarray, data_scale: np.ndarray, scales: np.ndarray, are_zero: np.ndarray
) -> np.ndarray:
    """Return weight scales, raised channel by channel until the bias fits into int32.

    The scale of the bias is ``data_scale * weight_scale``. If the bias overflows, the channel's weights are
    negligible beside it: they lose bits, but the bias keeps all bits of a float32. A channel of zeros is
    exact with any scale, and gets the finest one with which its bias fits.

    Args:
        bias: float, one value per output channel.
        data_scale: scale of the layer's data input, one value.
        scales: scales of the weight, float32, one or as many as `bias` has.
        are_zero: for each scale, whether its weights are all zero.

    Returns:
        The scales, float32; `scales` itself if none changes.

    Source: ONNX Runtime's QDQ quantizer, ``_adjust_weight_scale_for_int32_bias``, which does the same but
    leaves less room.
    """
    magnitude = np.abs(bias.astype(np.float64))
    least = magnitude / (np.float64(data_scale) * _MOST_STEPS)
    if scales.ndim == 0:
        least = np.asarray(least.max(initial=0.0))
    least = np.maximum(least, np.finfo(np.float32).tiny)
    wanted = np.where(are_zero & (magnitude > 0 if scales.ndim else True), least, scales)
    raised = np.maximum(wanted, least).astype(np.float32)
    return scales if np.array_equal(raised, scales) else raised


def quantize_bias(
    bias: np.ndarray, data_scale: np.ndarray, weight_scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize a bias with the scale of the integer products that it is added to.

    Args:
        bias: float, one value per output channel.
        data_scale: scale of the layer's data input, one value.
        weight_scales: scales of its weight, one or as many as `bias` has.

    Returns:
        Scales ``data_scale * weight_scale``, float32, and int32 steps; both of the shape of `bias`.
    """
    products = np.asarray(data_scale, np.float64) * np.asarray(weight_scales, np.float64)
    # a product below the smallest normal float32 would divide to infinity
    scales = np.maximum(products, np.finfo(np.float32).tiny).astype(np.float32)
    scales = np.broadcast_to(scales, bias.shape)
    steps = np.rint(bias.astype(np.float64) / scales)
    limit = np.iinfo(np.int32)
    return scales, np.clip(steps, limit.min, limit.max).astype(np.int32)
