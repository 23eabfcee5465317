"""The unlike parts of an output: boxes beside scores, centres beside sizes.

A metric over a whole output is useless where one part is in pixels and another between 0 and 1. The graph
shows the parts: the Concat that joins them, before nodes that only move values or work element by element.
Two cases look alike but are not parts:

    a Concat of alike branches (levels of a feature pyramid, time steps) along positions: the output has the
    parts of one branch, if all branches have the same
    a Softmax, a normalization or a layer with weights after the Concat: its result is one part

Where the graph does not tell the length of a part, the output is one part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from trtbuild.model.constants import integers, is_constant
from trtbuild.model.lengths import attribute_ints, axis_length, reshape_target
from trtbuild.model.operators import BROADCASTING, QDQ, UNARY, WEIGHTED
from trtbuild.model.shapes import dims, rank

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["WHOLE", "Part", "output_parts"]

# A Concat of more tensors is a collection, such as a DenseNet's features, not a record of fields.
_MOST_PARTS = 16
_DEEPEST = 12
_MOVING = frozenset({"Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_ELEMENTWISE = UNARY | QDQ
# The other operands of these are shapes and axes, computed or not.
_SHAPING = frozenset({"Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Part:
    """A block of an output along one axis; without an axis, the whole output.

    Attributes:
        axis: axis of the output; negative values count from the last one.
        start, stop: the block along the axis.
        length: of the whole axis.
        tensor: name in the graph of the tensor that the block holds.
    """

    axis: int | None = None
    start: int = 0
    stop: int = 0
    length: int = 0
    tensor: str = ""

    def __str__(self) -> str:
        if self.axis is None:
            return "all"
        if self.stop - self.start == 1:
            return f"channel {self.start} (axis {self.axis})"
        return f"channels {self.start} to {self.stop - 1} (axis {self.axis})"

    def fits(self, array: np.ndarray) -> bool:
        """Say whether `array` has this part: the axis, at its full length."""
        axis = self.axis
        if axis is None:
            return True
        return -array.ndim <= axis < array.ndim and array.shape[axis] == self.length

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return this part of an output as a view."""
        if self.axis is None:
            return array
        index = [slice(None)] * array.ndim
        index[self.axis] = slice(self.start, self.stop)
        return array[tuple(index)]


WHOLE = Part()
"""The only part of an output that is not divided."""


def output_parts(model: ir.Model) -> dict[str, tuple[Part, ...]]:
    """Return the parts of each output, in order; `WHOLE` alone where an output is not divided."""
    return {value.name or "": _parts(value) for value in model.graph.outputs}


def _parts(output: ir.Value) -> tuple[Part, ...]:
    found = _joined(output, _DEEPEST)
    axis = None if found is None else _axis_of_output(output, found)
    if found is None or axis is None:
        return (WHOLE,)
    parts, start = [], 0
    for block in found.blocks:
        if not block.length:
            continue
        stop = start + block.length
        parts.append(Part(axis, start, stop, found.length, block.tensor))
        start = stop
    return tuple(parts)


def _axis_of_output(output: ir.Value, found: _Joined) -> int | None:
    """The blocks' axis; None where it is the batch axis, or does not fit the recorded dims."""
    known, axis = dims(output), found.axis
    if known is not None:
        if not -len(known) <= axis < len(known):
            return None
        axis %= len(known)
        if isinstance(known[axis], int) and known[axis] != found.length:
            return None
    return axis or None


@dataclass(frozen=True)
class _Block:
    length: int
    tensor: str


@dataclass(frozen=True)
class _Joined:
    """A tensor that is made of blocks along an axis."""

    axis: int
    blocks: tuple[_Block, ...]

    @property
    def length(self) -> int:
        """Sum of the blocks' lengths along the axis."""
        return sum(block.length for block in self.blocks)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Length of each block along the axis."""
        return tuple(block.length for block in self.blocks)


def _joined(value: ir.Value | None, depth: int) -> _Joined | None:
    """The blocks that `value` is made of; None where it is not divided, or the graph does not tell."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or depth == 0 or is_constant(value):
        return None
    if node.op_type == "Concat":
        return _concatenated(node, depth)
    if node.op_type in _MOVING:
        inner = _joined(node.inputs[0], depth - 1)
        return None if inner is None else _moved(node, inner)
    if node.op_type in _ELEMENTWISE:
        return _joined(node.inputs[0], depth - 1)
    if node.op_type in BROADCASTING:
        return _of_operands(node, depth)
    return None


def _of_operands(node: ir.Node, depth: int) -> _Joined | None:
    """The blocks of the first operand that is divided."""
    full = rank(node.outputs[0])
    for operand in node.inputs:
        found = _joined(operand, depth - 1)
        own = rank(operand)
        if found is None:
            continue
        if own is None or full is None or own == full:
            return found
        if found.axis >= 0:
            return replace(found, axis=found.axis + full - own)
        return found
    return None


def _concatenated(node: ir.Node, depth: int) -> _Joined | None:
    axis, count = node.attributes.get_int("axis", 1), rank(node.outputs[0])
    if axis < 0 and count is not None:
        axis += count
    if _are_alike(node, axis):
        return _of_each(node, axis, depth)
    outer: list[_Block] = []
    inner: list[_Block] = []
    for operand in node.inputs:
        length = axis_length(operand, axis)
        if operand is None or length is None:
            return None
        outer.append(_Block(length, operand.name or ""))
        found = _joined(operand, depth - 1)
        fits = found is not None and found.axis == axis and found.length == length
        inner += found.blocks if found is not None and fits else outer[-1:]
    for blocks in (inner, outer):
        if 1 < len(blocks) <= _MOST_PARTS:
            return _Joined(axis, tuple(blocks))
    return None


def _of_each(node: ir.Node, axis: int, depth: int) -> _Joined | None:
    """The parts that all branches share, along another axis than that of the Concat."""
    found = [_joined(operand, depth - 1) for operand in node.inputs]
    first = found[0] if found else None
    if first is None or first.axis == axis:
        return None
    for other in found:
        if other is None or (other.axis, other.lengths) != (first.axis, first.lengths):
            return None
    return first


_Signature: TypeAlias = "tuple[object, ...]"


def _are_alike(node: ir.Node, axis: int) -> bool:
    """Whether the branches of a Concat repeat one another, rather than being fields of a record.

    They do where the same operators lead to each, unless the Concat joins output channels of weighted layers.
    """
    signatures = {_signature(operand, _DEEPEST // 2) for operand in node.inputs}
    if len(signatures) > 1:
        return False
    for operand in node.inputs:
        maker, moved = _layer_behind(operand)
        if moved or maker is None:
            return True
        channel = 1 if maker.op_type in ("Conv", "ConvTranspose") else -1
        at_end = rank(maker.outputs[0])
        if axis != channel and (at_end is None or axis % at_end != channel % at_end):
            return True
    return False


def _layer_behind(value: ir.Value | None) -> tuple[ir.Node | None, bool]:
    """The weighted layer before element-wise operators; and whether another operator is in between."""
    while value is not None:
        node = value.producer()
        if node is None:
            return None, False
        if node.op_type in WEIGHTED:
            return node, False
        operands = [one for one in node.inputs if one is not None and not is_constant(one)]
        if node.op_type not in UNARY | BROADCASTING or len(operands) != 1:
            return None, True
        value = operands[0]
    return None, False


def _signature(value: ir.Value | None, depth: int) -> _Signature | None:
    """The operators that lead to `value`, back to the next weighted layers; None for a constant."""
    if value is None or is_constant(value) or value.is_initializer():
        return None
    node = value.producer()
    if node is None:
        return (value.name,)
    if node.op_type in ("Shape", "Size", "ConstantOfShape", "Range"):
        return None
    if node.op_type in WEIGHTED or depth == 0:
        return (node.op_type,)
    if node.op_type in _SHAPING:
        return (node.op_type, _signature(node.inputs[0], depth - 1))
    found = [_signature(operand, depth - 1) for operand in node.inputs]
    return (node.op_type, *(one for one in found if one is not None))


def _moved(node: ir.Node, inner: _Joined) -> _Joined | None:
    """The blocks after an operator that moves values; None where the operator breaks up their axis."""
    before = rank(node.inputs[0])
    axis = inner.axis
    if axis < 0 and before is not None:
        axis += before
    match node.op_type:
        case "Transpose":
            perm = attribute_ints(node, "perm")
            if not perm:
                return None if before is None else replace(inner, axis=before - 1 - axis)
            return replace(inner, axis=perm.index(axis % len(perm)))
        case "Slice":
            axes = integers(node.inputs[3]) if len(node.inputs) > 3 else None
            length = axis_length(node.outputs[0], axis)
            kept = axes is not None and before is not None and axis not in _positive(axes, before)
            return inner if kept or length == inner.length else None
        case "Squeeze" | "Unsqueeze":
            return _squeezed(node, inner, axis)
        case "Reshape" | "Flatten":
            found = _reshaped(node, inner, axis)
            return None if found is None else replace(inner, axis=found)
    return None


def _positive(axes: tuple[int, ...], count: int) -> set[int]:
    return {axis % count for axis in axes}


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    if len(node.inputs) > 1:
        return integers(node.inputs[1])
    return attribute_ints(node, "axes") or None


def _squeezed(node: ir.Node, inner: _Joined, axis: int) -> _Joined | None:
    axes, before = _axes(node), rank(node.inputs[0])
    if axes is None or axis < 0 or (before is None and any(one < 0 for one in axes)):
        return None
    if node.op_type == "Squeeze":
        gone = _positive(axes, before) if before is not None else set(axes)
        return replace(inner, axis=axis - sum(one < axis for one in gone))
    new = _positive(axes, before + len(axes)) if before is not None else set(axes)
    free = (place for place in range(axis + len(new) + 1) if place not in new)
    return replace(inner, axis=[place for place, _ in zip(free, range(axis + 1))][-1])


def _reshaped(node: ir.Node, inner: _Joined, axis: int) -> int | None:
    """The blocks' axis after a Reshape; None where the Reshape breaks it up."""
    before, after = dims(node.inputs[0]), reshape_target(node)
    if after is None:
        return None
    if before is not None and axis == len(before) - 1 and after[-1] == inner.length:
        return len(after) - 1
    if before is None and after[-1] == inner.length and axis >= len(after) - 1:
        return len(after) - 1
    same_front = axis < len(after) and after[axis] == inner.length
    if not same_front:
        return None
    for place in range(axis):
        have = None if before is None else before[place]
        if after[place] not in (0, have, 1) and not (have is None and place == 0):
            return None
    return axis
