"""Rewrites operators on integers (QLinearConv, QLinearMatMul, ...) as the float operators behind Q/DQ.

An operator ``y = Q(f(DQ(a), DQ(b)))`` is written in this form: the same numbers, as TensorRT reads them.
Operators that only move integers between them work on floats behind a pair of the same scale,
which is exact, too. Operators that choose their scales at run time have no such form.

Source: the definitions of QLinearConv-10 and QLinearMatMul-10 in ONNX, and of ONNX Runtime's contrib
operators (``docs/ContribOperators.md``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trtbuild.errors import ModelError
from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import array
from trtbuild.model.edits import GraphWriter, remove_unread, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import ONNX_DOMAINS, moves_values
from trtbuild.model.qdq import is_qdq
from trtbuild.model.traversal import label

__all__ = ["as_qdq", "is_integer_operator", "is_quantized"]

_CONTRIB = "com.microsoft"


class _Triple(NamedTuple):
    """Positions of an operand, its scale and its zero point among the inputs of a node."""

    operand: int
    scale: int
    zero: int


class _Form(NamedTuple):
    """The meaning of an operator on integers.

    Attributes:
        op_type: the float operator.
        operands: positions of its operands.
        scale, zero: positions of scale and zero point of its result.
    """

    op_type: str
    operands: tuple[_Triple, ...]
    scale: int
    zero: int


_PAIR = (_Triple(0, 1, 2), _Triple(3, 4, 5))
_ONE = (_Triple(0, 1, 2),)
_FORMS = {
    "QLinearConv": _Form("Conv", _PAIR, 6, 7),
    "QLinearMatMul": _Form("MatMul", _PAIR, 6, 7),
    "QLinearAdd": _Form("Add", _PAIR, 6, 7),
    "QLinearMul": _Form("Mul", _PAIR, 6, 7),
    "QLinearGlobalAveragePool": _Form("GlobalAveragePool", _ONE, 3, 4),
    "QLinearAveragePool": _Form("AveragePool", _ONE, 3, 4),
    "QLinearLeakyRelu": _Form("LeakyRelu", _ONE, 3, 4),
    "QLinearSigmoid": _Form("Sigmoid", _ONE, 3, 4),
    "QLinearSoftmax": _Form("Softmax", _ONE, 3, 4),
    "QGemm": _Form("Gemm", _PAIR, 7, 8),
}
_CONCAT = "QLinearConcat"
_PREFIXES = (
    "QLinear",
    "QGemm",
    "QAttention",
    "QEmbed",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantize",
)
# Attributes that the float operators do not have.
_OF_THE_KERNEL = ("channels_last", "opset")
# Position of the bias, int32 in steps of the product of both scales.
_BIASES = {"QLinearConv": 8, "QGemm": 6}


def is_quantized(model: ir.Model) -> bool:
    """Return whether a network holds Q/DQ or operators on integers."""
    return any(
        is_qdq(node) or is_integer_operator(node.domain, node.op_type) for node in model.graph
    )


def is_integer_operator(domain: str, op_type: str) -> bool:
    """Return whether an operator works on integers with a scale, or chooses scales at run time."""
    return domain in (*ONNX_DOMAINS, _CONTRIB) and op_type.startswith(_PREFIXES)


def _is_old_softmax(node: ir.Node) -> bool:
    """Whether it sums over several axes, from `axis` to the last: Softmax did so before opset 13."""
    if node.op_type != "QLinearSoftmax" or attribute(node, "opset", 13) >= 13:
        return False
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    axis = attribute(node, "axis", 1)
    return axis != -1 and (shape is None or axis != len(shape) - 1)


def as_qdq(model: ir.Model) -> tuple[str, ...]:
    """Write operators on integers as float operators behind Q/DQ, in place.

    Returns:
        The names of the nodes that were rewritten, in the order of the network.

    Raises:
        ModelError: an operator has no form with Q/DQ, or its scales are computed; the message names it.
    """
    writer = _Writer(model)
    done = []
    for node in list(model.graph):
        if is_integer_operator(node.domain, node.op_type):
            writer.write_out(node)
            done.append(label(node))
        elif moves_values(node) and writer.is_integer(node.inputs[0]):
            writer.move_floats(node)
    if done:
        writer.write_tables()
        remove_unread(model)
    return tuple(done)


class _Writer:
    """Rewrites nodes, and keeps the scale and zero point of every integer tensor so far."""

    def __init__(self, model: ir.Model) -> None:
        self._writer = GraphWriter(model)
        self._graph = model.graph
        self._parameters: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        for node in model.graph:
            if node.op_type == "QuantizeLinear" and len(node.inputs) == 3:
                self._know(node.outputs[0], node.inputs[1], node.inputs[2])

    def _know(self, value: ir.Value, scale: ir.Value | None, zero: ir.Value | None) -> None:
        if scale is not None and zero is not None:
            self._parameters[value] = (scale, zero)

    def is_integer(self, value: ir.Value | None) -> bool:
        """Whether a tensor holds integers with a known scale."""
        return value in self._parameters

    def write_out(self, node: ir.Node) -> None:
        """Replace `node` by the float operator behind Q/DQ."""
        form = _FORMS.get(node.op_type)
        if node.op_type == _CONCAT:
            count = (len(node.inputs) - 2) // 3
            parts = tuple(_Triple(*range(2 + 3 * i, 5 + 3 * i)) for i in range(count))
            form = _Form("Concat", parts, 0, 1)
        if form is None or attribute(node, "channels_last", 0) or _is_old_softmax(node):
            raise ModelError(
                f"the network is quantized with {node.op_type} (node '{label(node)}'), which has no form "
                "with Q/DQ of constant scales; quantize it again with Q/DQ (static, quant_format=QDQ)."
            )
        operands = [self._dequantized(node, triple, node.op_type) for triple in form.operands]
        bias = self._bias(node, operands)
        inputs = operands if bias is None else [*operands, bias]
        attributes = [a for a in node.attributes.values() if a.name not in _OF_THE_KERNEL]
        made = ir.Node("", form.op_type, inputs, attributes, name=node.name)
        self._finish(node, made, input_at(node, form.scale), input_at(node, form.zero))

    def move_floats(self, node: ir.Node) -> None:
        """Let a node that only moves elements, such as Reshape, move the dequantized floats instead."""
        source = node.inputs[0]
        assert source is not None
        scale, zero = self._parameters[source]
        first = self._dequantize(node, source, scale, zero, axis=None)
        made = ir.Node(
            node.domain, node.op_type, [first, *node.inputs[1:]], node.attributes.values(),
            num_outputs=len(node.outputs), name=node.name,
        )  # fmt: skip
        self._finish(node, made, scale, zero)

    def write_tables(self) -> None:
        """Make nodes that pick integers from a constant (an embedding) pick the floats instead."""
        for dequantize in [n for n in self._graph if n.op_type == "DequantizeLinear"]:
            moving = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
            scale, zero = array(dequantize.inputs[1]), array(input_at(dequantize, 2))
            if moving is None or not moves_values(moving) or scale is None or scale.size != 1:
                continue
            table = array(moving.inputs[0])
            output = dequantize.outputs[0]
            if table is None or zero is None or output.is_graph_output():
                continue
            steps = table.astype(np.float64) - float(zero.reshape(-1)[0])
            floats = (steps * np.float64(scale.reshape(-1)[0])).astype(scale.dtype)
            content = self._writer.constant(f"{label(moving)}_float", floats)
            made = ir.Node(
                moving.domain, moving.op_type, [content, *moving.inputs[1:]],
                moving.attributes.values(), name=moving.name,
            )  # fmt: skip
            made.outputs[0].name = self._writer.fresh(f"{output.name}_picked")
            made.outputs[0].type, made.outputs[0].shape = output.type, output.shape
            self._graph.insert_before(dequantize, made)
            output.replace_all_uses_with(made.outputs[0])

    def _dequantized(self, node: ir.Node, triple: _Triple, op_type: str) -> ir.Value:
        value, scale, zero = (input_at(node, place) for place in triple)
        if value is None or scale is None or array(scale) is None:
            raise ModelError(f"a scale of {op_type} '{label(node)}' is computed, not constant.")
        if zero is None:
            dtype = np.int8 if value.dtype == ir.DataType.INT8 else np.uint8
            zero = self._writer.constant(f"{label(node)}_zero", np.zeros((), dtype))
        content, zeros = array(scale), array(zero)
        axis = None
        if content is not None and content.size > 1:
            if zeros is not None and zeros.size == 1:
                spread = np.broadcast_to(zeros.reshape(-1), content.shape)
                zero = self._writer.constant(f"{label(node)}_zero", np.array(spread))
            axis = 0 if op_type == "QLinearConv" else 1
            if op_type == "QGemm" and attribute(node, "transB", 0):
                axis = 0
        return self._dequantize(node, value, scale, zero, axis)

    def _dequantize(
        self, node: ir.Node, value: ir.Value, scale: ir.Value, zero: ir.Value, axis: int | None
    ) -> ir.Value:
        like = ir.Value(shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
        made = self._writer.dequantize(value, (scale, zero), f"{value.name}_float", like, axis)
        self._graph.insert_before(node, made)
        return made.outputs[0]

    def _bias(self, node: ir.Node, operands: list[ir.Value]) -> ir.Value | None:
        """The float bias of a layer: its step is the product of both scales."""
        place = _BIASES.get(node.op_type)
        given = None if place is None else input_at(node, place)
        if given is None:
            return None
        steps = array(given)
        scales = [array(operand.producer().inputs[1]) for operand in operands]  # type: ignore[union-attr]
        if steps is None:
            raise ModelError(
                f"the bias of {node.op_type} '{label(node)}' is computed, not constant."
            )
        product = np.float64(attribute(node, "alpha", 1.0))
        for scale in scales:
            assert scale is not None
            product = product * scale.astype(np.float64)
        floats = (steps.astype(np.float64) * product.reshape(-1)).astype(np.float32)
        return self._writer.constant(f"{label(node)}_bias", floats)

    def _finish(
        self, node: ir.Node, made: ir.Node, scale: ir.Value | None, zero: ir.Value | None
    ) -> None:
        """Replace `node` by `made`, with a Q after each output; without a scale the outputs are floats."""
        self._graph.insert_before(node, made)
        parts = len(node.outputs) if node.op_type == "Split" else 1
        for place, (old, new) in enumerate(zip(node.outputs, made.outputs)):
            name = old.name or ""
            if place >= parts:  # the indices of a MaxPool
                new.name, new.shape, new.type = self._writer.fresh(name), old.shape, old.type
                old.replace_all_uses_with(new)
                continue
            new.shape, new.type = old.shape, ir.TensorType(ir.DataType.FLOAT)
            result = new
            if scale is not None and zero is not None:
                new.name = self._writer.fresh(f"{name}_float")
                quantize = self._writer.quantize(new, (scale, zero), f"{name}_quantized")
                self._graph.insert_before(node, quantize)
                result = quantize.outputs[0]
                result.shape = old.shape
                self._know(result, scale, zero)
            else:
                new.name = self._writer.fresh(f"{name}_result")
            if old.is_graph_output():
                take_over_output(old, result, aside=self._writer.fresh(f"{name}_old"))
            old.replace_all_uses_with(result)
        self._graph.remove(node, safe=False)
