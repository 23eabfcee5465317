"""Leaky activations: fuses TensorFlow's decomposed PRelu, and simplifies PRelus with one slope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import array, is_constant, single_value
from trtbuild.model.shapes import dims, keeps_shape
from trtbuild.model.traversal import label, maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.rewrites.scale_shift import split_operands
from trtbuild.passes.weights import rounded

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["ConvertPreluToLeakyRelu", "FusePrelu"]


class ConvertPreluToLeakyRelu(Pass):
    """Write a PRelu with one slope as LeakyRelu.

    Pattern: PRelu whose slopes are all equal.
    Conditions: the slopes are constant and equal, bit for bit; floats.
    Effect: LeakyRelu with that slope.
    Source: NCNN ``replace_prelu_with_leaky_relu``.
    """

    name = "convert_prelu_to_leaky_relu"
    anchors = frozenset({"PRelu"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        if not is_constant(node.inputs[1]):
            raise Declined("its slopes are not constant")
        slope = single_value(node.inputs[1])
        dtype = node.outputs[0].dtype
        if slope is None or dtype is None or not dtype.is_floating_point():
            raise Declined("its slopes differ")
        if float(np.float32(slope)) != float(slope):
            raise Declined("its slope is not float32")
        attributes = {"alpha": float(slope)}
        output = node.outputs[0]
        result = edit.add("LeakyRelu", [node.inputs[0]], attributes, before=node, like=output)
        edit.replace(node, result, name=node.name)
        return f"has one slope, {float(slope):g}"


class FusePrelu(Pass):
    """Write the operators that TensorFlow exports for PRelu as PRelu.

    Pattern: ``Relu(x) + c * Relu(-x)``, which has slope ``-c``; ``Relu(x) + c * (x - |x|)``, which
        has slope ``2 c``; both also with Sub, and with the constant factors in any order.
    Conditions: one tensor x on both sides; c is constant and does not make x larger; the parts have no
        other reader.
    Effect: PRelu.
    Source: MNN ``FuseTfPrelu``.
    """

    name = "fuse_prelu"
    anchors = frozenset({"Add", "Sub"})
    needs = frozenset({"Relu"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`, the sum or difference."""
        for place in (0, 1) if node.op_type == "Add" else (0,):
            positive, other = maker(node.inputs[place], "Relu"), node.inputs[1 - place]
            if positive is None or positive.inputs[0] is None or other is None:
                continue
            slope = _slope(other, positive.inputs[0], node)
            if slope is not None:
                return self._fuse(node, positive, slope, edit)
        return None

    def _fuse(
        self, node: ir.Node, positive: ir.Node, slope: NDArray[np.float64], edit: Editor
    ) -> str:
        source = positive.inputs[0]
        assert source is not None, "rewrite looked"
        require_private(positive.outputs[0], node)
        if not keeps_shape(dims(source), slope.shape):
            raise Declined("the factor makes the tensor larger")
        if source.dtype is None:
            raise Declined("the type is not known")
        signed = slope if node.op_type == "Add" else -slope
        content = rounded(signed, source.dtype.numpy())
        operand = edit.constant(content, near=node, hint=f"{label(node)}_slope")
        result = edit.add("PRelu", [source, operand], before=node, like=node.outputs[0])
        edit.replace(node, result, name=node.name)
        return "was a PRelu spelled out"


def _slope(value: ir.Value, source: ir.Value, reader: ir.Node) -> NDArray[np.float64] | None:
    """Read `value` as ``slope * min(source, 0)``; None if it is something else."""
    node = maker(value, "Div", "Mul", "Neg", "Relu", "Sub")
    if node is None:
        return None
    inner: NDArray[np.float64] | None
    match node.op_type:
        case "Relu":
            negative = maker(node.inputs[0], "Neg")
            matches = negative is not None and negative.inputs[0] is source
            if negative is not None and matches:
                require_private(negative.outputs[0], node)
            inner = np.array(-1.0) if matches else None
        case "Sub":
            magnitude = maker(node.inputs[1], "Abs")
            matches = (
                magnitude is not None and node.inputs[0] is source and magnitude.inputs[0] is source
            )
            if magnitude is not None and matches:
                require_private(magnitude.outputs[0], node)
            inner = np.array(2.0) if matches else None
        case "Neg":
            below = None if node.inputs[0] is None else _slope(node.inputs[0], source, node)
            inner = None if below is None else -below
        case _:
            inner = _scaled_slope(node, source)
    if inner is not None:
        require_private(value, reader)
    return inner


def _scaled_slope(node: ir.Node, source: ir.Value) -> NDArray[np.float64] | None:
    operands = split_operands(node)
    content = None if operands is None else array(operands[1])
    if operands is None or content is None or (node.op_type == "Div" and operands[2]):
        return None
    below = _slope(operands[0], source, node)
    if below is None:
        return None
    factor = content.astype(np.float64)
    if node.op_type == "Mul":
        return below * factor
    if not factor.all():
        raise Declined("it divides by zero")
    return np.asarray(below / factor)
