"""Reverse accumulation: gradients go backwards through the nodes, with one rule per operator.

Griewank and Walther, Evaluating Derivatives, 2008, chapter 3: from the last node to the first, the gradients
of a node's outputs become gradients of its inputs; those that reach a tensor on several paths are summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.gradients.expansion import expand, is_defined
from trtbuild.gradients.rules import CHOOSING, FLAT, RULES
from trtbuild.gradients.step import Step
from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import all_graphs, all_nodes, bodies, has_bodies, label

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from trtbuild.gradients.step import Gradients
    from trtbuild.gradients.writer import Writer

__all__ = ["Reverse", "is_float", "read_by", "varying"]

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
)


def is_float(value: ir.Value) -> bool:
    """Return whether `value` is a tensor of floating-point numbers."""
    return isinstance(value.type, ir.TensorType) and value.dtype in _FLOATS


def read_by(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the inputs of `node`, and the outer tensors that its bodies read."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node):
        for graph in all_graphs(body):
            yield from graph.outputs
        for inner in all_nodes(body):
            yield from (value for value in inner.inputs if value is not None)


def moved_by(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the tensors that the values of the results of `node` depend on, not only their shape or type."""
    if node.domain == "" and node.op_type in ("Shape", "Size"):
        return
    if node.domain == "" and node.op_type == "CastLike":
        yield from (value for value in node.inputs[:1] if value is not None)
        return
    yield from read_by(node)


def varying(nodes: Iterable[ir.Node], sources: Collection[ir.Value]) -> set[ir.Value]:
    """Return `sources` and the outputs of `nodes` whose values depend on them, not only their shapes."""
    found = set(sources)
    for node in nodes:
        if any(value in found for value in moved_by(node)):
            found.update(node.outputs)
    return found


def stops(node: ir.Node, opset: int) -> bool:
    """Return whether no gradient passes `node`, although its results depend on its operands."""
    if node.domain != "" or node.op_type in CHOOSING or has_bodies(node):
        return True
    known = node.op_type in RULES or node.op_type in FLAT
    return not (known or is_defined(node.op_type, opset))


class Reverse:
    """One backward pass.

    Attributes:
        missing: tensor -> why its gradient is incomplete or absent.
    """

    def __init__(self, write: Writer, depending: Collection[ir.Value]) -> None:
        """Start a backward pass.

        Args:
            write: writes the backward graph.
            depending: tensors whose gradients are needed.
        """
        self.missing: dict[ir.Value, str] = {}
        self._write = write
        self._depending = depending
        self._arrived: dict[ir.Value, list[ir.Value]] = {}
        self._reached: set[ir.Value] = set()

    def start(self, value: ir.Value, gradient: ir.Value) -> None:
        """Add `gradient` to the gradients of `value`."""
        self._arrived.setdefault(value, []).append(gradient)
        self._reached.add(value)

    def total(self, value: ir.Value) -> ir.Value | None:
        """Return the sum of the gradients of `value`; None where there are none."""
        arrived = self._arrived.get(value)
        if not arrived:
            return None
        if len(arrived) > 1:
            arrived[:] = [self._write("Sum", *arrived, like=value)]
        return arrived[0]

    def through(self, nodes: Sequence[ir.Node]) -> None:
        """Go through `nodes`, which are in topological order, from the last to the first."""
        for node in reversed(nodes):
            if not any(v in self._reached and v in self._depending for v in node.outputs):
                continue
            if node.op_type in FLAT and node.domain == "":
                continue
            self._one(node)

    def _one(self, node: ir.Node) -> None:
        inputs = [value for value in moved_by(node) if value in self._depending]
        self._reached.update(inputs)
        for reason in [self.missing[v] for v in node.outputs if v in self.missing]:
            self._lack(inputs, reason)
        choice = self._choice(node)
        if choice is not None:
            self._lack(inputs, choice)
        gradients = tuple(self.total(value) for value in node.outputs)
        wanted = frozenset(
            index
            for index, value in enumerate(node.inputs)
            if value is not None and value in inputs and is_float(value)
        )
        if all(gradient is None for gradient in gradients) or not (wanted or inputs):
            return
        try:
            found = self._gradients(Step(node, gradients, wanted, self._write))
        except NoRuleError as error:
            why = f" ({error})" if str(error) else ""
            self._lack(inputs, f"{_named(node)} has no rule for gradients{why}")
            return
        for index in wanted:
            value = node.inputs[index]
            assert value is not None
            if index in found:
                self.start(value, found[index])
            else:
                self._lack([value], f"{_named(node)} has none for its input {index}")

    def _choice(self, node: ir.Node) -> str | None:
        """Why no gradient passes `node` because it chooses by values; None if it makes no used choice."""
        if node.domain != "":
            return None
        used = [value for value in node.outputs if value in self._reached]
        to_integers = node.op_type == "Cast" and not is_float(node.outputs[0])
        floats = any(value is not None and is_float(value) for value in node.inputs)
        indices = node.op_type == "TopK" and node.outputs[-1] in used
        if (node.op_type in CHOOSING or to_integers or indices) and floats:
            return f"{_named(node)} chooses by it, and no gradient tells what another choice would change"
        return None

    def _gradients(self, step: Step) -> Gradients:
        rule = RULES.get(step.node.op_type) if step.node.domain == "" else None
        if rule is not None:
            return rule(step)
        if step.node.domain != "" or has_bodies(step.node):
            raise NoRuleError("")
        return self._by_definition(step)

    def _by_definition(self, step: Step) -> Mapping[int, ir.Value]:
        expanded = expand(step.node, self._write)
        operands = {i: value for i in step.wanted if (value := step.node.inputs[i]) is not None}
        inner = Reverse(self._write, varying(expanded.nodes, set(operands.values())))
        for value, gradient in zip(expanded.outputs, step.gradients):
            if gradient is not None:
                inner.start(value, gradient)
        inner.through(expanded.nodes)
        for value in operands.values():
            if value in inner.missing:
                raise NoRuleError(inner.missing[value])
        totals = {index: inner.total(value) for index, value in operands.items()}
        return {index: total for index, total in totals.items() if total is not None}

    def _lack(self, values: Iterable[ir.Value], reason: str) -> None:
        for value in values:
            self.missing.setdefault(value, reason)


def _named(node: ir.Node) -> str:
    kind = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    return f"{kind} '{label(node)}'"
