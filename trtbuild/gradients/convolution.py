"""Gradients of convolutions by their inputs and biases; their weights count as constants.

The gradient of a convolution by its input is a transposed convolution of the result's gradient, and vice
versa (Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.constants import array
from trtbuild.model.shapes import dims, static_dims

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES", "Window", "back_to_input", "window_of"]


@dataclass(frozen=True)
class Window:
    """The kernel, strides and padding of an operator, with one entry per spatial axis.

    Attributes:
        kernel, strides, dilations: as in ONNX.
        begins, ends: padding in front of and behind the input; None if it depends on a size that is unknown
            before the network runs (``auto_pad``).
        lower: whether the larger half of such a padding is in front (``SAME_LOWER``).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...] | None
    ends: tuple[int, ...] | None
    lower: bool = False

    @property
    def count(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def spans(self) -> tuple[int, ...]:
        """The extent of the dilated kernel on the input, per axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations))


def window_of(step: Step, kernel: tuple[int, ...]) -> Window:
    """Return the window of the operator for a kernel of these sizes on its first operand."""
    count = len(kernel)
    strides = tuple(step.attribute("strides") or (1,) * count)
    dilations = tuple(step.attribute("dilations") or (1,) * count)
    window = Window(kernel, strides, dilations, (0,) * count, (0,) * count)
    auto = step.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = tuple(step.attribute("pads") or (0,) * 2 * count)
        return Window(kernel, strides, dilations, pads[:count], pads[count:])
    if auto == "VALID":
        return window
    totals = []
    sizes = dims(step.x())
    for axis, (span, stride) in enumerate(zip(window.spans, strides)):
        size = None if sizes is None else sizes[axis + 2]
        if stride == 1:
            totals.append(span - 1)
        elif isinstance(size, int):
            totals.append(max((-(-size // stride) - 1) * stride + span - size, 0))
        else:
            return Window(kernel, strides, dilations, None, None, auto == "SAME_LOWER")
    halves = tuple(total // 2 for total in totals)
    rest = tuple(total - half for total, half in zip(totals, halves))
    return (
        Window(kernel, strides, dilations, rest, halves)
        if auto == "SAME_LOWER"
        else Window(kernel, strides, dilations, halves, rest)
    )


def back_to_input(
    step: Step, gradient: ir.Value, weight: ir.Value, window: Window, group: int
) -> ir.Value:
    """Return the gradient by the operator's input: a transposed convolution of the result's gradient.

    Args:
        step: an operator whose first operand is N x C x spatial.
        gradient: of the shape of the operator's result.
        weight: as in the operator, results x (C / group) x kernel.
        window: of the operator.
        group: of the convolution.
    """
    w, x = step.write, step.x()
    exact = _exact_remainder(step, window)
    common: dict[str, Any] = {
        "group": group,
        "strides": window.strides,
        "dilations": window.dilations,
    }
    common["kernel_shape"] = window.kernel
    if exact is not None:
        assert window.begins is not None
        assert window.ends is not None
        pads = [*window.begins, *window.ends]
        return w("ConvTranspose", gradient, weight, pads=pads, output_padding=exact, **common)
    # With the largest output_padding the result reaches at least the end of the input; the rest is cut off.
    begins = window.begins or (0,) * window.count
    pads = [*begins, *(0,) * window.count]
    rest = [stride - 1 for stride in window.strides]
    full = w("ConvTranspose", gradient, weight, pads=pads, output_padding=rest, **common)
    axes = w.integers(*range(2, 2 + window.count))
    sizes = w.sizes_from(x, 2)
    starts = w.integers(*(0,) * window.count)
    if window.begins is None:
        starts = _computed_begins(step, window, gradient, sizes)
        sizes = w.add(starts, sizes)
    return w("Slice", full, starts, sizes, axes)


def _computed_begins(step: Step, window: Window, gradient: ir.Value, sizes: ir.Value) -> ir.Value:
    """The padding in front for SAME: half of max((Y - 1) stride + span - X, 0)."""
    w = step.write
    last = w.sub(w.sizes_from(gradient, 2), w.integers(1))
    reach = w.add(w.mul(last, w.integers(*window.strides)), w.integers(*window.spans))
    total = w("Max", w.sub(reach, sizes), w.integers(0))
    if window.lower:
        total = w.add(total, w.integers(1))
    return w.div(total, w.integers(2))


def _exact_remainder(step: Step, window: Window) -> list[int] | None:
    """Return how far the input extends beyond the last window, per axis; None where a size is unknown."""
    if window.begins is None or window.ends is None:
        return None
    if all(stride == 1 for stride in window.strides):
        return [0] * window.count
    sizes, results = dims(step.x()), dims(step.y)
    if sizes is None or results is None:
        return None
    found = []
    for axis in range(window.count):
        x, y = sizes[axis + 2], results[axis + 2]
        stride = window.strides[axis]
        if stride == 1:
            found.append(0)
        elif isinstance(x, int) and isinstance(y, int):
            reach = (y - 1) * stride + window.spans[axis]
            found.append(x + window.begins[axis] + window.ends[axis] - reach)
        else:
            return None
    return found if all(0 <= rest < s for rest, s in zip(found, window.strides)) else None


def _kernel(step: Step) -> tuple[int, ...]:
    written = step.attribute("kernel_shape")
    if written:
        return tuple(written)
    shape = static_dims(step.x(1))
    if shape is None:
        raise NoRuleError("a kernel of unknown size")
    return shape[2:]


def _conv(step: Step) -> Gradients:
    found = {}
    if 0 in step.wanted:
        window, group = window_of(step, _kernel(step)), step.attribute("group", 1)
        turned = _as_convolution(step, window, group)
        found[0] = (
            back_to_input(step, step.g, step.x(1), window, group) if turned is None else turned
        )
    if 2 in step.wanted:
        found[2] = _to_bias(step)
    return found


def _as_convolution(step: Step, window: Window, group: int) -> ir.Value | None:
    """Return the gradient as a convolution with the flipped kernel, which is faster; None if there is none.

    Needs strides of one and constant weights.
    """
    weight = array(step.x(1))
    if weight is None or window.begins is None or window.ends is None:
        return None
    begins = [span - 1 - pad for span, pad in zip(window.spans, window.begins)]
    ends = [span - 1 - pad for span, pad in zip(window.spans, window.ends)]
    if any(stride != 1 for stride in window.strides) or min(*begins, *ends) < 0:
        return None
    outputs, inputs = weight.shape[:2]
    grouped = weight.reshape(group, outputs // group, inputs, *weight.shape[2:]).swapaxes(1, 2)
    turned = grouped.reshape(group * inputs, outputs // group, *weight.shape[2:])
    turned = np.flip(turned, tuple(range(2, turned.ndim)))
    return step.write(
        "Conv",
        step.g,
        step.write.array(np.ascontiguousarray(turned)),
        group=group,
        dilations=window.dilations,
        pads=[*begins, *ends],
    )


def _conv_transpose(step: Step) -> Gradients:
    found = {}
    if 0 in step.wanted:
        found[0] = _convolved(step)
    if 2 in step.wanted:
        found[2] = _to_bias(step)
    return found


def _convolved(step: Step) -> ir.Value:
    kernel = _kernel(step)
    count = len(kernel)
    if step.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        raise NoRuleError("auto_pad")
    if step.attribute("output_shape"):
        raise NoRuleError("output_shape")
    strides = tuple(step.attribute("strides") or (1,) * count)
    extra = step.attribute("output_padding") or (0,) * count
    if any(rest >= stride for rest, stride in zip(extra, strides)):
        raise NoRuleError("output_padding of a stride or more")
    return step.write(
        "Conv",
        step.g,
        step.x(1),
        group=step.attribute("group", 1),
        kernel_shape=kernel,
        strides=strides,
        dilations=tuple(step.attribute("dilations") or (1,) * count),
        pads=list(step.attribute("pads") or (0,) * 2 * count),
    )


def _to_bias(step: Step) -> ir.Value:
    axes = [axis for axis in range(step.rank(step.y)) if axis != 1]
    return step.write.sum_over(step.g, axes, keep=False)


RULES: dict[str, Rule] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
