"""Gradients of operators that are linear along each axis separately: Resize and Pad.

Applied to the identity, the operator gives its own matrix along an axis; the gradient is multiplied by that
matrix transposed. So the runtime itself implements all modes and coordinate rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.attributes import constant_of
from trtbuild.model.constants import integers
from trtbuild.model.shapes import dims

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _resize(step: Step) -> Gradients:
    w, gradient, count = step.write, step.g, step.rank(step.x())
    if step.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NoRuleError("coordinate_transformation_mode 'tf_crop_and_resize'")
    if step.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoRuleError("keep_aspect_ratio_policy")
    if step.attribute("axes"):
        raise NoRuleError("axes")
    scales = step.given(2)
    by_scale = scales is not None and dims(scales) != (0,)
    for axis in _changed(step, count, by_scale=by_scale):
        identity = w("Unsqueeze", w.identity_matrix(step.x(), axis), w.integers(0, 1))
        if by_scale:
            assert scales is not None
            one = w.array(np.ones(3, np.float32))
            factors = w("Concat", one, w("Gather", scales, w.integers(axis), axis=0), axis=0)
            operands = [identity, None, factors]
        else:
            size = w.size_of(step.x(), axis)
            sizes = w.joined(w.integers(1, 1), size, w.size_of(step.y, axis))
            operands = [identity, None, None, sizes]
        attributes = {name: item.value for name, item in step.node.attributes.items()}
        matrix = w("Resize", *operands, **attributes)
        gradient = _through(step, gradient, axis, count, w("Squeeze", matrix, w.integers(0, 1)))
    return {0: gradient}


def _changed(step: Step, count: int, *, by_scale: bool) -> Iterable[int]:
    """The axes that may change their size."""
    if by_scale:
        scales = constant_of(step.node, 2)
        return [i for i in range(count) if scales is None or scales[i] != 1.0]
    old, new = dims(step.x()), dims(step.y)
    if old is None or new is None:
        return range(count)
    return [i for i in range(count) if old[i] is None or old[i] != new[i]]


def _through(step: Step, gradient: ir.Value, axis: int, count: int, matrix: ir.Value) -> ir.Value:
    """Multiply along an axis by the transpose of `matrix`, of old size x new size."""
    w = step.write
    turned = w.axis_last(gradient, axis, count)
    product = w("MatMul", turned, w("Transpose", matrix, perm=[1, 0]))
    return w.axis_last(product, axis, count)


def _pad(step: Step) -> Gradients:
    """For constant padding, cut it off with a Pad of negative widths."""
    w, axes_input = step.write, step.given(3)
    if step.attribute("mode", "constant") == "constant":
        known = integers(step.x(1))
        back = w.neg(step.x(1)) if known is None else w.integers(*(-pad for pad in known))
        operands = [step.g, back] if axes_input is None else [step.g, back, None, axes_input]
        return {0: w("Pad", *operands, like=step.x())}
    gradient, count, pads = step.g, step.rank(step.x()), integers(step.x(1))
    axes = tuple(range(count)) if axes_input is None else integers(axes_input)
    if pads is None or axes is None:
        raise NoRuleError(f"mode '{step.attribute('mode')}' with computed widths")
    for place, axis in enumerate(axes):
        begin, end = pads[place], pads[place + len(axes)]
        if begin or end:
            identity = w.identity_matrix(step.x(), axis)
            widths = w.integers(0, begin, 0, end)
            matrix = w("Pad", identity, widths, mode=step.attribute("mode"))
            gradient = _through(step, gradient, axis % count, count, matrix)
    return {0: gradient}


RULES: dict[str, Rule] = {"Resize": _resize, "Pad": _pad}
