"""INT8 weights: ``scale = amax / 127`` per channel or per tensor, rounded half to even."""

from __future__ import annotations

import numpy as np

from trtbuild.errors import ModelError
from trtbuild.quantization.plan import INT8_LIMIT

__all__ = ["quantize_weight", "weight_scales"]


def weight_scales(weight: np.ndarray, axis: int | None, name: str) -> np.ndarray:
    """Scales of a float weight: float32, shape ``[weight.shape[axis]]``, or ``[]`` for axis None.

    An all-zero channel gets scale 1: it is exact under any scale, and TensorRT refuses zero.

    Raises:
        ModelError: the weight holds NaN or infinity.
    """
    magnitude = np.abs(weight.astype(np.float32))
    if not np.isfinite(magnitude).all():
        raise ModelError(
            f"the weight '{name}' holds {int((~np.isfinite(magnitude)).sum())} values that are NaN or "
            "infinite; export the network again from a sound checkpoint."
        )
    others = tuple(i for i in range(weight.ndim) if i != axis) if axis is not None else None
    amax = magnitude.max(axis=others).astype(np.float32)
    scales = amax / np.float32(INT8_LIMIT)
    # a scale below the smallest normal float32 would divide to infinity
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    return np.asarray(np.where(amax > 0, scales, 1), dtype=np.float32)


def quantize_weight(weight: np.ndarray, scales: np.ndarray, axis: int | None) -> np.ndarray:
    """Round ``weight / scale`` half to even into [-127, 127], int8, same shape."""
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    steps = np.rint(weight.astype(np.float32) / scales.reshape(shape))
    return np.asarray(np.clip(steps, -INT8_LIMIT, INT8_LIMIT), dtype=np.int8)
