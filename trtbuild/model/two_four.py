"""The 2:4 pattern of NVIDIA's sparse tensor cores: two zeros in every four consecutive input channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["has_two_four", "input_channel_axis"]


def input_channel_axis(node: ir.Node) -> int | None:
    """Return the axis of a node's weight that holds the input channels; None for other operators."""
    if len(node.inputs) < 2:
        return None
    if node.op_type == "Gemm":
        return 1 if attribute(node, "transB", 0) else 0
    return {"Conv": 1, "ConvTranspose": 0, "MatMul": -2}.get(node.op_type)


def has_two_four(weight: NDArray[Any], axis: int) -> bool:
    """Return whether at most two of every four consecutive values along `axis` are not zero.

    False for an axis whose length is not a multiple of four.
    """
    if weight.ndim < 2 or weight.shape[axis] % 4:
        return False
    fours = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    return bool((np.count_nonzero(fours, axis=1) <= 2).all())
