"""Writes the nodes of a backward graph: arithmetic, shapes and sums, for any rank and batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.edits import add_initializer
from trtbuild.model.graph_library import ir
from trtbuild.model.names import Names
from trtbuild.model.opset import opset_of
from trtbuild.model.shapes import dims, rank, same_dims, static_dims

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NoRuleError", "Writer", "dtype_of"]

_LOGICAL = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}
)
_COUNTING = frozenset({"ArgMax", "NonZero", "Shape", "Size"})


class NoRuleError(Exception):
    """This form of an operator has no rule; the text names the form, for example "mode 'cubic'"."""


def _type(op_type: str, inputs: Sequence[ir.Value | None]) -> ir.TypeProtocol | None:
    """Return the type of a node's output: by the tables above, else that of its first data operand."""
    if op_type in _LOGICAL:
        return ir.TensorType(ir.DataType.BOOL)
    if op_type in _COUNTING:
        return ir.TensorType(ir.DataType.INT64)
    first = inputs[1] if op_type == "Where" else inputs[0]
    return None if first is None else first.type


def dtype_of(value: ir.Value) -> ir.DataType:
    """Return the element type of a tensor.

    Raises:
        NoRuleError: it is unknown, for example after an operator that ONNX cannot infer.
    """
    if value.dtype is None:
        raise NoRuleError(f"the element type of '{value.name}' is not known")
    return value.dtype


class Writer:
    """Appends nodes to the main graph of a network; they are valid from opset 13 on.

    Attributes:
        model: the network.
        opset: its version of the ONNX operator set.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = opset_of(model)
        self._names = Names(model)
        self._node_names = {node.name for node in model.graph}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._sizes: dict[ir.Value, ir.Value] = {}

    def fresh(self, hint: str) -> str:
        """Return a tensor name that starts with `hint` and is not taken."""
        return self._names.fresh(hint)

    def __call__(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        like: ir.Value | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Append a node of the ONNX domain; return its only output, with the type and shape of `like`."""
        name = self.fresh(f"backward_{op_type}")
        node = ir.node(op_type, list(inputs), attributes=attributes, name=self._node_name(name))
        output = node.outputs[0]
        output.name = name
        output.type = _type(op_type, inputs) if like is None else like.type
        if like is not None:
            output.shape = like.shape
        self.model.graph.append(node)
        return output

    def _node_name(self, hint: str) -> str:
        name, number = hint, 1
        while name in self._node_names:
            number += 1
            name = f"{hint}_node_{number}"
        self._node_names.add(name)
        return name

    def append(self, node: ir.Node) -> None:
        """Append an existing node; it and its outputs get unused names."""
        node.name = self._node_name(f"backward_{node.op_type}")
        for output in node.outputs:
            if output.name != "":
                output.name = self.fresh(f"backward_{node.op_type}")
        self.model.graph.append(node)

    def array(self, content: np.ndarray) -> ir.Value:
        """Return a constant; small ones with equal content are shared."""
        key = (content.dtype.str, content.shape, content.tobytes() if content.size < 64 else b"")
        if content.size < 64 and key in self._constants:
            return self._constants[key]
        value = add_initializer(self.model.graph, self.fresh("backward_constant"), content)
        if content.size < 64:
            self._constants[key] = value
        return value

    def number(self, value: float, like: ir.Value) -> ir.Value:
        """Return a scalar of the element type of `like`."""
        return self.array(np.array(value, dtype_of(like).numpy()))

    def integers(self, *values: int) -> ir.Value:
        """Return an int64 vector."""
        return self.array(np.array(values, np.int64))

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a + b."""
        return self("Add", a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a - b."""
        return self("Sub", a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a * b."""
        return self("Mul", a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a / b."""
        return self("Div", a, b)

    def neg(self, a: ir.Value) -> ir.Value:
        """-a."""
        return self("Neg", a)

    def times(self, a: ir.Value, factor: float) -> ir.Value:
        """Return a * factor, or a itself if the factor is one."""
        return a if factor == 1.0 else self.mul(a, self.number(factor, a))

    def plus(self, a: ir.Value, term: float) -> ir.Value:
        """Return a + term."""
        return self.add(a, self.number(term, a))

    def masked(self, gradient: ir.Value, condition: ir.Value) -> ir.Value:
        """Return `gradient` where the condition holds, else zero; a product is far faster than Where."""
        return self.mul(gradient, self.as_type_of(condition, gradient))

    def where(self, condition: ir.Value, a: ir.Value, b: float) -> ir.Value:
        """Return a where the condition holds, else b."""
        return self("Where", condition, a, self.number(b, a), like=a)

    def as_type_of(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Return `value` with the element type of `like`."""
        dtype = dtype_of(like)
        result = self("Cast", value, to=int(dtype))
        result.type = ir.TensorType(dtype)
        return result

    def shape(self, value: ir.Value) -> ir.Value:
        """Return the dims of `value` as an int64 vector, which is constant if they are known."""
        if value not in self._sizes:
            known = static_dims(value)
            if known is not None:
                self._sizes[value] = self.integers(*known)
            else:
                self._sizes[value] = self("Shape", value)
        return self._sizes[value]

    def size_of(self, value: ir.Value, axis: int) -> ir.Value:
        """Return one dim of `value` as an int64 vector of one element."""
        known = dims(value)
        if known is not None:
            size = known[axis]
            if isinstance(size, int):
                return self.integers(size)
        return self("Gather", self.shape(value), self.integers(axis), axis=0)

    def sizes_from(self, value: ir.Value, start: int) -> ir.Value:
        """Return the dims of `value` from axis `start` on, as an int64 vector."""
        known = dims(value)
        if known is not None and all(isinstance(size, int) for size in known[start:]):
            return self.integers(*(size for size in known[start:] if isinstance(size, int)))
        end = self.integers(np.iinfo(np.int64).max)
        return self("Slice", self.shape(value), self.integers(start), end)

    def joined(self, *vectors: ir.Value) -> ir.Value:
        """Concatenate int64 vectors."""
        return vectors[0] if len(vectors) == 1 else self("Concat", *vectors, axis=0)

    def reshape(self, value: ir.Value, shape: ir.Value) -> ir.Value:
        """Return `value` with the dims in vector `shape`; from opset 14 on a 0 there means size 0."""
        if self.opset < 14:
            return self("Reshape", value, shape)
        return self("Reshape", value, shape, allowzero=1)

    def inferred(self, value: ir.Value, *dims_or_copies: int) -> ir.Value:
        """Return `value` with these dims, where 0 copies a dim and -1 is computed."""
        return self("Reshape", value, self.integers(*dims_or_copies))

    def in_shape_of(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Return the elements of `value`, in their order, in the shape of `like`."""
        if same_dims(dims(value), dims(like)):
            return value
        result = self.reshape(value, self.shape(like))
        result.shape = like.shape
        return result

    def zeros_like(self, value: ir.Value) -> ir.Value:
        """Return zeros in the shape of `value`."""
        return self("Expand", self.number(0.0, value), self.shape(value), like=value)

    def spread(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Return `value` broadcast to the shape of `like`."""
        if same_dims(dims(value), dims(like)):
            return value
        return self("Expand", value, self.shape(like), like=like)

    def sum_over(self, value: ir.Value, axes: Sequence[int], *, keep: bool = True) -> ir.Value:
        """Return the sum over `axes`, or `value` itself if there are none."""
        if not axes:
            return value
        return self("ReduceSum", value, self.integers(*axes), keepdims=int(keep))

    def unbroadcast(self, gradient: ir.Value, operand: ir.Value, result: ir.Value) -> ir.Value:
        """Sum a gradient of the shape of `result` over the axes along which `operand` was broadcast."""
        small, large = dims(operand), dims(result)
        if same_dims(small, large):
            return gradient
        if small is not None and large is not None:
            fixed = all(
                isinstance(a, int) or a == b for a, b in zip(reversed(small), reversed(large))
            )
            if fixed:
                front = len(large) - len(small)
                axes = [*range(front), *(front + i for i, size in enumerate(small) if size == 1)]
                axes = [axis for axis in axes if large[axis] != 1]
                return self.in_shape_of(self.sum_over(gradient, axes), operand)
        return self._unbroadcast_at_run_time(gradient, operand)

    def _unbroadcast_at_run_time(self, gradient: ir.Value, operand: ir.Value) -> ir.Value:
        shape = self.shape(operand)
        count = self("Shape", self("Shape", gradient))
        missing = self("Sub", count, self("Shape", shape))
        ones = self("Expand", self.integers(1), missing)
        padded = self("Concat", ones, shape, axis=0)
        single = self("Equal", padded, self.integers(1))
        axes = self("Squeeze", self("NonZero", single), self.integers(0))
        total = self("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
        result = self.reshape(total, shape)
        result.type, result.shape = operand.type, operand.shape
        return result

    def swapped(self, value: ir.Value) -> ir.Value:
        """Transpose matrices: swap the last two axes."""
        axes = list(range(rank(value) or 2))
        axes[-2:] = [axes[-1], axes[-2]]
        return self("Transpose", value, perm=axes)

    def axis_last(self, value: ir.Value, axis: int, number: int) -> ir.Value:
        """Swap `axis` and the last of `number` axes; a second call undoes it."""
        axes = list(range(number))
        axes[axis], axes[-1] = axes[-1], axes[axis]
        return value if axis == number - 1 else self("Transpose", value, perm=axes)

    def identity_matrix(self, value: ir.Value, axis: int) -> ir.Value:
        """Return the identity matrix of the size of one axis of `value`, and of its element type."""
        known = dims(value)
        size = None if known is None else known[axis]
        if isinstance(size, int):
            return self.array(np.eye(size, dtype=dtype_of(value).numpy()))
        length = self.size_of(value, axis)
        square = self("Expand", self.number(0.0, value), self.joined(length, length))
        return self("EyeLike", square)
