"""Moves Transposes past operators that work in any layout, until they meet others and cancel.

``op(T(x))`` equals ``T(op'(x))``, where the constants and the axis of ``op'`` are permuted back: axis ``a``
after the Transpose ``T`` is axis ``perm[a]`` before it. A constant that broadcasts against ``T(x)`` is
padded to its rank and transposed by the inverse permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, input_at, normal_axis, permutation
from trtbuild.model.constants import array, is_constant
from trtbuild.model.operators import ACTIVATIONS, BROADCASTING, UNARY
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import maker, sole_node
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = [
    "SinkTranspose",
    "SinkTransposeBelowActivation",
    "SinkTransposeBelowAdd",
    "SinkTransposeBelowQdq",
]

_WITH_AXIS = frozenset({"Concat", "LogSoftmax", "Softmax"})
_DATA_OPERANDS = BROADCASTING | {"Concat", "PRelu"}
"""Operators all of whose operands are tensors to permute; others have one, and parameters."""


@dataclass(frozen=True)
class _Sink:
    """A Transpose that can move past a node.

    Attributes:
        perm: its permutation.
        sources: operand index -> the tensor before its Transpose.
        constants: indices of the constant operands to permute back.
    """

    perm: tuple[int, ...]
    sources: dict[int, ir.Value]
    constants: tuple[int, ...]


def _sink_of(node: ir.Node) -> _Sink | None:
    """Read the Transposes before `node`; None if there is none.

    Raises:
        Declined: one of them cannot move.
    """
    places = range(len(node.inputs)) if node.op_type in _DATA_OPERANDS else range(1)
    computed = [place for place in places if not is_constant(node.inputs[place])]
    found = {place: maker(node.inputs[place], "Transpose") for place in computed}
    if not any(found.values()):
        return None
    perms = {
        None if item is None else permutation(item, rank(item.inputs[0])) for item in found.values()
    }
    perm = perms.pop()
    if perm is None or perms:
        raise Declined("its operands are not all transposed the same way")
    sources: dict[int, ir.Value] = {}
    for place, transpose in found.items():
        value = node.inputs[place]
        if transpose is None or transpose.inputs[0] is None or value is None:
            return None
        require_private(value, node)
        sources[place] = transpose.inputs[0]
    constants = tuple(place for place in places if place not in sources)
    for place in constants:
        content = array(node.inputs[place])
        if content is None or content.ndim > len(perm):
            raise Declined("a constant makes the result of a higher rank")
        if node.op_type == "Concat" and content.ndim != len(perm):
            raise Declined("a piece has another rank")
    return _Sink(perm, sources, constants)


def _sink(node: ir.Node, sink: _Sink, edit: Editor) -> str:
    """Move the Transposes of `sink` past `node`."""
    inverse = tuple(int(place) for place in np.argsort(sink.perm))
    for place in sink.constants:
        operand = node.inputs[place]
        content = array(operand)
        assert content is not None and operand is not None, "_sink_of looked"  # noqa: PT018
        if content.size == 1 and node.op_type != "Concat":
            continue
        padded = content.reshape((1,) * (len(inverse) - content.ndim) + content.shape)
        turned = np.transpose(padded, inverse)
        node.replace_input_with(
            place, edit.constant(turned, near=node, hint=operand.name or "constant")
        )
    if node.op_type in _WITH_AXIS:
        axis = normal_axis(int(attribute(node, "axis", -1)), len(inverse))
        edit.set_attribute(node, "axis", sink.perm[axis])
    for place, source in sink.sources.items():
        edit.rewire(node, place, source)
    edit.follow(node, "Transpose", {"perm": list(sink.perm)})
    return f"runs in front of Transpose {list(sink.perm)}"


class SinkTranspose(Pass):
    """Move Transposes of operands past operators that work in any layout.

    Pattern: an elementwise operator, Concat or Softmax all of whose computed operands come from
        Transposes with one permutation.
    Conditions: the transposed tensors have no other reader; axis and constants are permuted along;
        Softmax of opset 13 or newer (before, it flattens). Reshapes and reductions stop it.
    Effect: the operator works in the layout in front, with one Transpose after it.
    Source: MNN ``TurnCompabilityOpAsNC4HW4``.
    """

    name = "sink_transpose"
    anchors = UNARY | BROADCASTING | _WITH_AXIS | {"PRelu"}
    needs = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Sink the Transposes before `node` past it."""
        sink = _sink_of(node)
        if sink is None:
            return None
        if edit.opset < 13 and node.op_type in {"LogSoftmax", "Softmax"}:
            raise Declined("before opset 13 it flattens its input")
        if node.op_type == "PRelu" and 0 not in sink.sources:
            raise Declined("only its slopes are transposed")
        return _sink(node, sink, edit)


class SinkTransposeBelowQdq(Pass):
    """Move a Transpose past a Q/DQ pair, next to the Transpose that follows.

    Pattern: ``Transpose -> QuantizeLinear -> DequantizeLinear -> Transpose``.
    Conditions: one scale for the whole tensor; no tensor between has another reader. Transposes at
        inputs and outputs stay.
    Effect: the pair works in the layout in front, and the two Transposes are neighbours, which
        compose or cancel.
    Source: MNN ``AddTensorFormatConverter``; TensorRT chooses layouts itself, so only the cancelling of
        Transposes around NCHW islands remains of it.
    """

    name = "sink_transpose_below_qdq"
    anchors = frozenset({"QuantizeLinear"})
    needs = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Move the Transpose before `node` past the DequantizeLinear that follows."""
        first = maker(node.inputs[0], "Transpose")
        following = sole_node(node.outputs[0], "DequantizeLinear")
        if first is None or first.inputs[0] is None or following is None:
            return None
        if sole_node(following.outputs[0], "Transpose") is None:
            return None
        perm = permutation(first, rank(first.inputs[0]))
        if perm is None or not all(_per_tensor(item) for item in (node, following)):
            raise Declined("its scale lies along an axis")
        require_private(first.outputs[0], node)
        edit.rewire(node, 0, first.inputs[0])
        node.outputs[0].shape = None
        edit.infer(node)
        edit.follow(following, "Transpose", {"perm": list(perm)})
        return f"runs in front of Transpose {list(perm)}"


def _per_tensor(node: ir.Node) -> bool:
    return rank(node.inputs[1]) == 0 or (rank(input_at(node, 1)) is not None and _single(node))


def _single(node: ir.Node) -> bool:
    content = array(node.inputs[1])
    return content is not None and content.size == 1


class SinkTransposeBelowAdd(Pass):
    """Move the Transposes of both summands past the Add.

    Pattern: ``Transpose(a) + Transpose(b)`` with one permutation, also after DequantizeLinear.
    Conditions: the transposed tensors have no other reader; both permutations are the same.
    Effect: ``Transpose(a + b)``; ``DequantizeLinear -> Add`` become neighbours.
    Source: MNN ``BinaryAddToEltWise``.
    """

    name = "sink_transpose_below_add"
    anchors = frozenset({"Add"})
    needs = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Sink two Transposes past `node`."""
        if any(maker(value, "Transpose") is None for value in node.inputs):
            return None
        sink = _sink_of(node)
        return None if sink is None else _sink(node, sink, edit)


class SinkTransposeBelowActivation(Pass):
    """Move the Transpose between a convolution and its activation past the activation.

    Pattern: ``Conv -> Transpose -> activation``.
    Conditions: the transposed tensor has no other reader. Other passes remove an Identity or Dropout
        between them.
    Effect: ``Conv -> activation -> Transpose``, which TensorRT fuses; no contrib operator.
    Source: ONNX Runtime ``Conv Activate Fusion``.
    """

    name = "sink_transpose_below_activation"
    anchors = ACTIVATIONS
    needs = frozenset({"Transpose"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Sink the Transpose between a convolution and `node`."""
        transpose = maker(node.inputs[0], "Transpose")
        if transpose is None or maker(transpose.inputs[0], "Conv", "ConvTranspose") is None:
            return None
        sink = _sink_of(node)
        return None if sink is None else _sink(node, sink, edit)
