"""Gradients of operators that move, repeat, drop or pick elements: they move back where these came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.attributes import permutation
from trtbuild.model.constants import integers
from trtbuild.model.shapes import dims

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _same(step: Step) -> Gradients:
    return {0: step.g}


def _reshaped(step: Step) -> Gradients:
    return {0: step.write.in_shape_of(step.g, step.x())}


def _dropout(step: Step) -> Gradients:
    return {0: step.g}


def _cast(step: Step) -> Gradients:
    return {0: step.write.as_type_of(step.g, step.x())}


def _transpose(step: Step) -> Gradients:
    perm = permutation(step.node, step.rank(step.x()))
    assert perm is not None
    return {0: step.write("Transpose", step.g, perm=[int(i) for i in np.argsort(perm)])}


def _expand(step: Step) -> Gradients:
    return {0: step.write.unbroadcast(step.g, step.x(), step.y)}


def _tile(step: Step) -> Gradients:
    """Split every axis into repetition and position, and sum over the repetitions."""
    w, x = step.write, step.x()
    count = step.rank(x)
    columns = [w("Unsqueeze", one, w.integers(1)) for one in (step.x(1), w.shape(x))]
    split = w.inferred(w("Concat", *columns, axis=1), -1)
    total = w.sum_over(w.reshape(step.g, split), range(0, 2 * count, 2), keep=False)
    return {0: w.in_shape_of(total, x)}


def _concat(step: Step) -> Gradients:
    w, axis = step.write, step.attribute("axis")
    start = w.integers(0)
    found = {}
    for index in range(len(step.node.inputs)):
        value = step.x(index)
        end = _sum(step, start, w.size_of(value, axis))
        if index in step.wanted:
            found[index] = w("Slice", step.g, start, end, w.integers(axis), like=value)
        start = end
    return found


def _sum(step: Step, a: ir.Value, b: ir.Value) -> ir.Value:
    """A + b of int64 vectors, as a constant if both are constant."""
    first, second = integers(a), integers(b)
    if first is not None and second is not None:
        return step.write.integers(*(i + j for i, j in zip(first, second)))
    return step.write.add(a, b)


def _split(step: Step) -> Gradients:
    w = step.write
    parts = [
        w.zeros_like(output) if gradient is None else gradient
        for output, gradient in zip(step.node.outputs, step.gradients)
    ]
    axis = step.attribute("axis", 0)
    return {0: parts[0] if len(parts) == 1 else w("Concat", *parts, axis=axis, like=step.x())}


def _slice(step: Step) -> Gradients:
    """Insert zeros where the Slice took nothing, one axis at a time.

    The same Slice of the indices 0, 1, 2 ... tells which were taken, whatever the bounds and steps are.
    """
    w, gradient = step.write, step.g
    count = step.rank(step.x())
    starts, ends, steps = step.x(1), step.x(2), step.given(4)
    axes_input = step.given(3)
    axes = integers(axes_input) if axes_input is not None else _first_axes(step)
    if axes is None:
        raise NoRuleError("computed axes")
    padded = _as_padding(step, axes)
    if padded is not None:
        return {0: padded}
    for place, axis in enumerate(axes):
        one = [None if v is None else _entry(step, v, place) for v in (starts, ends, steps)]
        places = _places(step, axis)
        taken = w("Slice", places, one[0], one[1], w.integers(0), one[2])
        gradient = _put_back(step, gradient, axis % count, places, taken)
    return {0: gradient}


def _first_axes(step: Step) -> tuple[int, ...] | None:
    known = dims(step.x(1))
    count = None if known is None else known[0]
    return tuple(range(count)) if isinstance(count, int) else None


def _entry(step: Step, vector: ir.Value, place: int) -> ir.Value:
    known = integers(vector)
    w = step.write
    if known is not None:
        return w.integers(known[place])
    entry = w("Gather", vector, w.integers(place), axis=0)
    return w("Cast", entry, to=7)


def _as_padding(step: Step, axes: tuple[int, ...]) -> ir.Value | None:
    """Return the gradient as one Pad, if bounds and dims are known and every step is one; else None."""
    w, sizes = step.write, dims(step.x())
    starts, ends = integers(step.x(1)), integers(step.x(2))
    steps = (1,) * len(axes) if step.given(4) is None else integers(step.given(4))
    if sizes is None or starts is None or ends is None or steps is None or set(steps) != {1}:
        return None
    begins, rest = [0] * len(sizes), [0] * len(sizes)
    for axis, start, end in zip(axes, starts, ends):
        size = sizes[axis]
        if not isinstance(size, int):
            return None
        first, last, _ = slice(start, end).indices(size)
        begins[axis], rest[axis] = first, size - max(first, last)
    return w("Pad", step.g, w.integers(*begins, *rest), like=step.x())


def _places(step: Step, axis: int) -> ir.Value:
    """The indices 0, 1, 2 ... along an axis of the input."""
    known = dims(step.x())
    size = None if known is None else known[axis]
    w = step.write
    if isinstance(size, int):
        return w.array(np.arange(size))
    end = w("Squeeze", w.size_of(step.x(), axis))
    return w("Range", w.array(np.array(0)), end, w.array(np.array(1)))


def _put_back(
    step: Step, gradient: ir.Value, axis: int, places: ir.Value, taken: ir.Value
) -> ir.Value:
    """Return `gradient` along `axis` at the indices `taken` of `places`, with zeros at all others."""
    w = step.write
    zero = w("ReduceSum", gradient, w.integers(axis), keepdims=1)
    zero = w.mul(zero, w.number(0.0, gradient))
    extended = w("Concat", gradient, zero, axis=axis)
    last = w("Shape", taken)  # the index of the zero
    nowhere = w("Expand", last, w("Shape", places))
    order = w("Range", w.array(np.array(0)), w("Squeeze", last), w.array(np.array(1)))
    origin = w("ScatterElements", nowhere, taken, order, axis=0)
    return w("Gather", extended, origin, axis=axis)


def _scatter_add(step: Step, op_type: str, indices: ir.Value, **attributes: Any) -> ir.Value:
    w = step.write
    if w.opset < 16:
        raise NoRuleError(f"opset {w.opset}, which cannot add by index")
    zeros = w.zeros_like(step.x())
    return w(op_type, zeros, indices, step.g, reduction="add", **attributes)


def _gather(step: Step) -> Gradients:
    """Add the rows up at the indices they were taken from; the axis of the rows is moved to the front."""
    w, x, indices = step.write, step.x(), step.x(1)
    if w.opset < 16:
        raise NoRuleError(f"opset {w.opset}, which cannot add by index")
    count, picked = step.rank(x), step.rank(indices)
    axis = step.attribute("axis", 0) % count
    others = [i for i in range(count) if i != axis]
    shape = w.shape(x)
    turned = w("Gather", shape, w.integers(axis, *others), axis=0)
    zeros = w("Expand", w.number(0.0, x), turned)
    at = [*range(axis, axis + picked), *range(axis), *range(axis + picked, count - 1 + picked)]
    rows = w("Transpose", step.g, perm=at)
    where = w("Unsqueeze", indices, w.integers(-1))
    where = w("Cast", where, to=7)
    total = w("ScatterND", zeros, where, rows, reduction="add")
    return {0: w("Transpose", total, perm=[int(i) for i in np.argsort([axis, *others])], like=x)}


def _gather_elements(step: Step) -> Gradients:
    axis = step.attribute("axis", 0)
    return {0: _scatter_add(step, "ScatterElements", step.x(1), axis=axis)}


def _gather_nd(step: Step) -> Gradients:
    if step.attribute("batch_dims", 0):
        raise NoRuleError("batch_dims")
    return {0: _scatter_add(step, "ScatterND", step.x(1))}


def _scatter(step: Step) -> Gradients:
    """ScatterElements, ScatterND: overwritten elements get zero, updates the gradient of their place."""
    if step.attribute("reduction", "none") not in ("none", "add"):
        raise NoRuleError(f"reduction '{step.attribute('reduction')}'")
    w, op_type, indices = step.write, step.node.op_type, step.x(1)
    elements = op_type == "ScatterElements"
    axis = {"axis": step.attribute("axis", 0)} if elements else {}
    found = {}
    if 0 in step.wanted:
        adds = step.attribute("reduction", "none") == "add"
        zeros = w.zeros_like(step.x(2))
        found[0] = step.g if adds else w(op_type, step.g, indices, zeros, **axis)
    if 2 in step.wanted:
        found[2] = w("GatherElements" if elements else "GatherND", step.g, indices, **axis)
    return found


def _top_k(step: Step) -> Gradients:
    """The gradients of the values go to the indices they were found at; the indices count as constant."""
    w, axis = step.write, step.attribute("axis", -1)
    zeros = w.zeros_like(step.x())
    return {0: w("ScatterElements", zeros, step.node.outputs[1], step.g, axis=axis)}


def _depth_to_space(step: Step) -> Gradients:
    block = step.attribute("blocksize")
    w = step.write
    if step.attribute("mode", "DCR") == "DCR":
        return {0: w("SpaceToDepth", step.g, blocksize=block, like=step.x())}
    # CRD: the channel is the outer index, the position in a block the inner, as in PyTorch's pixel_shuffle
    x, g = step.x(), step.g
    heights = w.size_of(x, 2), w.size_of(x, 3)
    b = w.integers(block)
    shape = w.joined(w.size_of(x, 0), w.integers(-1), heights[0], b, heights[1], b)
    apart = w("Transpose", w("Reshape", g, shape), perm=[0, 1, 3, 5, 2, 4])
    return {0: w.in_shape_of(apart, x)}


def _space_to_depth(step: Step) -> Gradients:
    block = step.attribute("blocksize")
    return {0: step.write("DepthToSpace", step.g, blocksize=block, like=step.x())}


RULES: dict[str, Rule] = {
    "Identity": _same,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast,
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "TopK": _top_k,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
