"""Fuses the operators that exporters write for layer normalization into LayerNormalization.

mean = ReduceMean(x)        over the trailing axes, dims kept
d    = x - mean
var  = ReduceMean(d * d)    or d ** 2, over the same axes
y    = d / sqrt(var + eps)  or d * (1 / sqrt(..)), or d / (..) ** 0.5
z    = y * scale + shift    both optional
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, axes, normal_axis
from trtbuild.model.constants import array, single_value
from trtbuild.model.shapes import rank, static_dims
from trtbuild.model.traversal import label, maker, sole_node
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.scale_shift import split_operands

if TYPE_CHECKING:
    from typing import Any

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["FuseLayerNorm"]

_FIRST_OPSET = 17


@dataclass(frozen=True)
class _Core:
    """``(x - mean) / sqrt(var + eps)`` and its nodes."""

    source: ir.Value
    axis: int
    epsilon: float
    nodes: frozenset[ir.Node]


class FuseLayerNorm(Pass):
    """Write a decomposed layer normalization as LayerNormalization.

    Pattern: ``(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)``, then optionally ``* scale`` and
        ``+ shift``, as PyTorch and TensorFlow export it.
    Conditions: opset 17 or newer; both means over the same trailing axes; eps is a constant inside the
        root; scale and shift are constants over those axes; no tensor between has another reader.
        Normalization over the channels of NCHW, RMS normalization, and the variance of another tensor stay.
    Effect: one LayerNormalization.
    Source: MNN ``FuseLayerNorm``; Ba et al. 2016.
    """

    name = "fuse_layer_norm"
    anchors = frozenset({"Div", "Mul"})
    needs = frozenset({"ReduceMean"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace the normalization whose division is `node`, with its scale and shift."""
        centred, root = _quotient(node)
        if centred is None or root is None:
            return None
        core = _core(node, centred, root)
        if core is None:
            return None
        if edit.opset < _FIRST_OPSET:
            raise Declined(f"LayerNormalization came with opset {_FIRST_OPSET}")
        _require_unseen(core, node)
        shape = (static_dims(core.source) or _trailing(core))[core.axis :]
        dtype = core.source.dtype
        if dtype is None or dtype.numpy() == np.float64:
            raise Declined("LayerNormalization works in float32 inside")
        last, scale, shift = _scale_and_shift(node, shape)
        if scale is None:
            scale = np.ones(shape, dtype.numpy())
        operands = [core.source, edit.constant(scale, near=last, hint=f"{label(node)}_scale")]
        if shift is not None:
            operands.append(edit.constant(shift, near=last, hint=f"{label(node)}_shift"))
        attributes = {"axis": core.axis, "epsilon": core.epsilon}
        result = edit.add(
            "LayerNormalization", operands, attributes, before=last, like=last.outputs[0]
        )
        edit.replace(last, result)
        return f"normalized over {list(shape)}"


def _quotient(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the Sub that is the dividend, and the variance plus epsilon under the root."""
    if node.op_type == "Div":
        return maker(node.inputs[0], "Sub"), _under_root(node.inputs[1])
    for place in (0, 1):
        inverse = maker(node.inputs[1 - place], "Div", "Reciprocal", "Pow")
        centred = maker(node.inputs[place], "Sub")
        if inverse is None or centred is None:
            continue
        if inverse.op_type == "Pow":
            under = inverse.inputs[0] if single_value(inverse.inputs[1]) == -0.5 else None
        elif inverse.op_type == "Reciprocal":
            under = _under_root(inverse.inputs[0])
        else:
            under = _under_root(inverse.inputs[1]) if single_value(inverse.inputs[0]) == 1 else None
        if under is not None:
            return centred, under
    return None, None


def _under_root(value: ir.Value | None) -> ir.Value | None:
    root = maker(value, "Pow", "Sqrt")
    if root is None or (root.op_type == "Pow" and single_value(root.inputs[1]) != 0.5):
        return None
    return root.inputs[0]


def _core(node: ir.Node, centred: ir.Node, under: ir.Value) -> _Core | None:
    addition = maker(under, "Add")
    operands = None if addition is None else split_operands(addition)
    mean = maker(centred.inputs[1], "ReduceMean")
    source = centred.inputs[0]
    if operands is None or mean is None or addition is None or source is None:
        return None
    epsilon = single_value(operands[1])
    variance = maker(operands[0], "ReduceMean")
    if variance is None or epsilon is None:
        return None
    square = maker(variance.inputs[0], "Mul", "Pow")
    if square is None or not _squares(square, centred.outputs[0]):
        return None
    if mean.inputs[0] is not source:
        return None
    axis = _trailing_axis(mean)
    if axis is None or axis != _trailing_axis(variance):
        raise Declined("the means are not over the same trailing axes")
    between = _path(node, addition)
    return _Core(
        source, axis, float(epsilon), frozenset({centred, mean, variance, square, *between, node})
    )


def _squares(square: ir.Node, value: ir.Value) -> bool:
    if square.inputs[0] is not value:
        return False
    if square.op_type == "Mul":
        return square.inputs[1] is value
    return single_value(square.inputs[1]) == 2


def _path(node: ir.Node, addition: ir.Node) -> set[ir.Node]:
    """Return the nodes from the Add of epsilon to the division: root, inverse."""
    found: set[ir.Node] = {addition}
    waiting = [value.producer() for value in node.inputs if value is not None]
    while waiting:
        current = waiting.pop()
        if current is None or current.op_type not in {"Div", "Pow", "Reciprocal", "Sqrt"}:
            continue
        found.add(current)
        waiting += [value.producer() for value in current.inputs if value is not None]
    return found


def _trailing_axis(mean: ir.Node) -> int | None:
    """Return -k for a mean over exactly the last k axes, with dims kept; else None."""
    written, count = axes(mean), rank(mean.inputs[0])
    if not written or not attribute(mean, "keepdims", 1):
        return None
    if count is None:
        return -1 if written == (-1,) else None
    places = {normal_axis(axis, count) for axis in written}
    return -len(places) if places == set(range(count - len(places), count)) else None


def _require_unseen(core: _Core, last: ir.Node) -> None:
    for node in core.nodes - {last}:
        for output in node.outputs:
            outside = [user for user in output.consumers() if user not in core.nodes]
            if outside or output.is_graph_output():
                raise Declined(f"'{output.name}' is also read elsewhere")


def _trailing(core: _Core) -> tuple[int, ...]:
    """Return the dims of the normalized axes if only those are known."""
    shape = core.source.shape
    known = [] if shape is None else list(shape.dims[core.axis :])
    sizes = tuple(dim for dim in known if isinstance(dim, int))
    if len(sizes) != -core.axis:
        raise Declined("the size of the normalized axes is not known")
    return sizes


def _scale_and_shift(
    node: ir.Node, shape: tuple[int, ...]
) -> tuple[ir.Node, NDArray[Any] | None, NDArray[Any] | None]:
    """Return the last node of the pattern, and the scale and shift that follow the division."""
    last, scale, shift = node, None, None
    following = sole_node(last.outputs[0], "Mul")
    if following is not None:
        scale = _over_axes(following, shape)
        last = last if scale is None else following
    following = sole_node(last.outputs[0], "Add")
    if following is not None:
        shift = _over_axes(following, shape)
        last = last if shift is None else following
    return last, scale, shift


def _over_axes(node: ir.Node, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Read a constant operand that varies over the normalized axes only."""
    operands = split_operands(node)
    content = None if operands is None else array(operands[1])
    if content is None or (content.ndim < len(shape) and content.size != 1):
        return None
    extra = content.shape[: max(0, content.ndim - len(shape))]
    if content.size != 1 and (content.shape[len(extra) :] != shape or set(extra) - {1}):
        return None
    if operands is not None and content.ndim > (rank(operands[0]) or 0):
        return None
    flat = content.reshape(()) if content.size == 1 else content.reshape(shape)
    full: NDArray[Any] = np.broadcast_to(flat, shape).copy()
    return full
