"""Quantizes float weights to int8, with one symmetric scale per slice of an axis.

``scale = max |w| / 127`` over the slice, ``q = round(w / scale)`` to the nearest even: TensorRT's form
for weights. A slice of zeros gets scale 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.passes.declined import Declined

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["quantize_rows"]

_LARGEST = 127
_FIRST_OPSET = 13
_FIRST_HALF_OPSET = 19


def quantize_rows(
    content: NDArray[Any], axis: int, hint: str, before: ir.Node, edit: Editor
) -> ir.Value:
    """Insert a DequantizeLinear of `content` in int8, with one scale per slice of `axis`.

    Raises:
        Declined: the opset has no scales of the weights' type, or no per-channel scales.
    """
    if edit.opset < (_FIRST_OPSET if content.dtype == np.float32 else _FIRST_HALF_OPSET):
        raise Declined(f"opset {edit.opset} has no scales of {content.dtype} along an axis")
    others = tuple(place for place in range(content.ndim) if place != axis)
    wide = content.astype(np.float64)
    amax = np.abs(wide).max(axis=others, keepdims=True)
    scale = np.where(amax > 0, amax / _LARGEST, 1.0).astype(content.dtype)
    integers = np.clip(np.rint(wide / scale.astype(np.float64)), -_LARGEST, _LARGEST).astype(
        np.int8
    )
    operands = [
        edit.constant(integers, near=before, hint=f"{hint}_int8"),
        edit.constant(scale.reshape(-1), near=before, hint=f"{hint}_scale"),
        edit.constant(np.zeros(scale.size, np.int8), near=before, hint=f"{hint}_zero_point"),
    ]
    return edit.add("DequantizeLinear", operands, {"axis": axis}, before=before)
