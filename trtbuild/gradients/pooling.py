"""Gradients of pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.gradients.convolution import back_to_input, window_of
from trtbuild.gradients.writer import NoRuleError, dtype_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.gradients.convolution import Window
    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _max_pool(step: Step) -> Gradients:
    """The gradient of each result goes to its maximum; of ties, to the one whose index the runtime gives."""
    w, x, node = step.write, step.x(), step.node
    if w.opset < 16:
        raise NoRuleError(f"opset {w.opset}, which cannot add by index")
    if step.attribute("storage_order", 0):
        raise NoRuleError("storage_order")
    if len(node.outputs) < 2:
        node.resize_outputs(2)
    indices = node.outputs[1]
    if not indices.name:
        indices.name = w.fresh("backward_indices")
    # the indices count over all elements, batches and channels included
    flat = w("Expand", w.number(0.0, x), w("Shape", w.inferred(x, -1)))
    places, values = (w.inferred(value, -1) for value in (indices, step.g))
    total = w("ScatterElements", flat, places, values, axis=0, reduction="add")
    return {0: w.reshape(total, w.shape(x))}


def _average_pool(step: Step) -> Gradients:
    """Spread each result's gradient over the elements averaged: a transposed convolution with ones."""
    w, x = step.write, step.x()
    kernel = tuple(step.attribute("kernel_shape"))
    window = window_of(step, kernel)
    ones = w.array(np.ones((1, 1, *kernel), dtype_of(x).numpy()))
    share = w.mul(step.g, _share(step, window, ones))
    # treat channels as batches
    single = w("Reshape", share, w.joined(w.integers(-1, 1), w.sizes_from(step.y, 2)))
    return {0: w.reshape(back_to_input(step, single, ones, window, 1), w.shape(x))}


def _share(step: Step, window: Window, ones: ir.Value) -> ir.Value:
    """Return 1 / divisor of each average; padding and the end of the input change the divisor.

    AveragePool of ones gives (elements inside the input) / divisor, and a convolution gives the elements.
    """
    w, x, spatial = step.write, step.x(), window.count
    everywhere = w("Expand", w.number(1.0, x), w.joined(w.integers(1, 1), w.sizes_from(x, 2)))
    average = w("AveragePool", everywhere, **_attributes(step))
    common: dict[str, Any] = {"strides": window.strides, "dilations": window.dilations}
    common["kernel_shape"] = window.kernel
    if window.begins is None or window.ends is None:
        count = w("Conv", everywhere, ones, auto_pad=step.attribute("auto_pad"), **common)
        return w.div(average, count)
    more = [stride - 1 for stride in window.strides] if step.attribute("ceil_mode", 0) else None
    ends = [end + one for end, one in zip(window.ends, more or [0] * spatial)]
    count = w("Conv", everywhere, ones, pads=[*window.begins, *ends], **common)
    if more:
        axes = w.integers(*range(2, 2 + spatial))
        count = w("Slice", count, w.integers(*[0] * spatial), w.sizes_from(step.y, 2), axes)
    return w.div(average, count)


def _attributes(step: Step) -> dict[str, Any]:
    return {name: item.value for name, item in step.node.attributes.items()}


RULES: dict[str, Rule] = {"MaxPool": _max_pool, "AveragePool": _average_pool}
