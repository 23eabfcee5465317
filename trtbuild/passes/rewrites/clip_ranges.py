"""Merges operators that clamp: Relu, Clip, and Min and Max with a constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import clip_bounds
from trtbuild.model.constants import array, is_constant, single_value
from trtbuild.model.shapes import dims, keeps_shape
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["MergeClips", "MergeRelus"]

_CLAMPS = ("Clip", "Max", "Min", "Relu")


@dataclass(frozen=True)
class _Clamp:
    """``min(max(x, low), high)`` with ``low <= high``."""

    source: ir.Value
    low: float
    high: float

    def then(self, later: _Clamp) -> _Clamp:
        """Return this clamp followed by `later` as one clamp, to the image of the first interval."""
        low, high = (min(max(end, later.low), later.high) for end in (self.low, self.high))
        return _Clamp(self.source, low, high)


def _read(node: ir.Node | None) -> _Clamp | None:
    """Read a node as a clamp of one float tensor.

    Raises:
        Declined: its bounds are not constant, or cross, or its constant makes the tensor larger.
    """
    if node is None or node.inputs[0] is None:
        return None
    dtype = node.outputs[0].dtype
    if dtype is None or not dtype.is_floating_point():
        return None
    if node.op_type == "Relu":
        return _Clamp(node.inputs[0], 0.0, math.inf)
    if node.op_type != "Clip":
        return _read_extremum(node)
    bounds = clip_bounds(node)
    if bounds is None:
        raise Declined("its bounds are not constant")
    if bounds[0] > bounds[1]:
        raise Declined("its bounds cross")
    return _Clamp(node.inputs[0], *bounds)


def _read_extremum(node: ir.Node) -> _Clamp | None:
    constants = [value for value in node.inputs if is_constant(value)]
    if len(node.inputs) != 2 or len(constants) != 1:
        return None
    source = next(value for value in node.inputs if value is not constants[0])
    bound, content = single_value(constants[0]), array(constants[0])
    if source is None or bound is None or content is None or math.isnan(float(bound)):
        return None
    if not keeps_shape(dims(source), content.shape):
        raise Declined("its constant may make the result larger")
    low, high = (float(bound), math.inf) if node.op_type == "Max" else (-math.inf, float(bound))
    return _Clamp(source, low, high)


def _write(clamp: _Clamp, node: ir.Node, edit: Editor) -> None:
    """Replace `node` by one Relu or Clip."""
    output = node.outputs[0]
    if (clamp.low, clamp.high) == (0.0, math.inf):
        result = edit.add("Relu", [clamp.source], before=node, like=output)
    elif edit.opset < 11:
        bounds = {"min": _finite(clamp.low), "max": _finite(clamp.high)}
        result = edit.add("Clip", [clamp.source], bounds, before=node, like=output)
    else:
        dtype = output.dtype
        assert dtype is not None, "_read looked at it"
        limits = [
            edit.constant(np.array(bound, dtype.numpy()), near=node, hint=f"{output.name}_{end}")
            if math.isfinite(bound)
            else None
            for bound, end in ((clamp.low, "min"), (clamp.high, "max"))
        ]
        while limits and limits[-1] is None:
            limits.pop()
        result = edit.add("Clip", [clamp.source, *limits], before=node, like=output)
    edit.replace(node, result, name=node.name)


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


class MergeRelus(Pass):
    """Write Max with zero as Relu, and merge consecutive Relus.

    Pattern: ``Relu -> Relu``; ``Max(x, 0)``.
    Conditions: floats; the zero is constant and does not make the result larger; Max with another
        constant is not a Relu.
    Effect: one Relu, which TensorRT fuses with the convolution before it. No FusedConv is made.
    Source: MNN ``MergeReluToConvolution``.
    """

    name = "merge_relus"
    anchors = frozenset({"Max", "Relu"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Turn a Max into a Relu, or drop a second Relu."""
        if node.op_type == "Relu":
            if maker(node.inputs[0], "Relu") is None or node.inputs[0] is None:
                return None
            edit.bypass(node, node.outputs[0], node.inputs[0])
            return "followed a Relu"
        clamp = _read(node)
        if clamp is None or (clamp.low, clamp.high) != (0.0, math.inf):
            return None
        _write(clamp, node, edit)
        return "was Max(x, 0)"


class MergeClips(Pass):
    """Merge a chain of clamps into one Clip.

    Pattern: Relu, Clip, and Min or Max with a constant, one behind the other.
    Conditions: floats; constant bounds that do not cross; the tensor between has no other reader.
    Effect: one Clip (or Relu) to the image of the first interval under the second clamp, so
        ``Clip(0, 6) -> Clip(7, 9)`` is 7 everywhere and not ``Clip(7, 6)``.
    Source: MNN ``MergeRelu6ToConvolution``.
    """

    name = "merge_clips"
    anchors = frozenset(_CLAMPS)

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Merge `node` with the clamp before it."""
        if not any(maker(value, *_CLAMPS) for value in node.inputs):
            return None
        second = _read(node)
        first_node = None if second is None else maker(second.source, *_CLAMPS)
        first = _read(first_node)
        if first is None or second is None or first_node is None:
            return None
        require_private(second.source, node)
        _write(first.then(second), node, edit)
        return f"took in {first_node.op_type} '{first_node.name}'"
