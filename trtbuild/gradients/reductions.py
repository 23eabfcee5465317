"""Gradients of reductions: the gradient goes back to every reduced element."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.attributes import axes as written_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _reduction(derivative: Callable[[Step, ir.Value, ir.Value], ir.Value]) -> Rule:
    """Return a rule from (step, result, gradient) -> gradient, where reduced dims are kept as 1."""

    def rule(step: Step) -> Gradients:
        y, g = (_with_reduced_dims(step, value) for value in (step.y, step.g))
        return {0: step.write.spread(derivative(step, y, g), step.x())}

    return rule


def _with_reduced_dims(step: Step, value: ir.Value) -> ir.Value:
    """Insert dropped axes again; if all were dropped, a scalar broadcasts anyway."""
    if step.attribute("keepdims", 1):
        return value
    axes = written_axes(step.node)
    if axes is None:
        raise NoRuleError("computed axes that are dropped")
    return step.write("Unsqueeze", value, step.write.integers(*axes)) if axes else value


def _mean(step: Step, _: ir.Value, g: ir.Value) -> ir.Value:
    """The gradient of a sum, divided by the number of elements in each result."""
    w = step.write
    sizes = (w.as_type_of(w("Size", value), step.x()) for value in (step.y, step.x()))
    return w.mul(g, w.div(*sizes))


def _extreme(step: Step, y: ir.Value, g: ir.Value) -> ir.Value:
    """The gradient goes to the largest or smallest element; ties get equal shares, as in PyTorch."""
    w, x = step.write, step.x()
    hits = w.as_type_of(w("Equal", x, y), x)
    return w.mul(hits, w.div(g, _reduced_like(step, hits)))


def _global_average(step: Step) -> Gradients:
    return {0: step.write.spread(_mean(step, step.y, step.g), step.x())}


def _global_max(step: Step) -> Gradients:
    w, x = step.write, step.x()
    hits = w.as_type_of(w("Equal", x, step.y), x)
    count = w.sum_over(hits, range(2, step.rank(x)))
    return {0: w.mul(hits, w.div(step.g, count))}


def _reduced_like(step: Step, value: ir.Value) -> ir.Value:
    """Sum over the axes of the step's reduction, with dims kept as 1."""
    axes, w = written_axes(step.node), step.write
    if axes:
        return w.sum_over(value, axes)
    if axes is None:
        return w("ReduceSum", value, step.x(1), keepdims=1)
    return value if step.attribute("noop_with_empty_axes", 0) else w("ReduceSum", value, keepdims=1)


def _product(step: Step, y: ir.Value, g: ir.Value) -> ir.Value:
    """Product / element: exact where no element is zero."""
    return step.write.div(step.write.mul(g, y), step.x())


def _l2(step: Step, y: ir.Value, g: ir.Value) -> ir.Value:
    w = step.write
    positive = w("Greater", y, w.number(0.0, y))
    return w.mul(step.x(), w.masked(w.div(g, w.where(positive, y, 1.0)), positive))


RULES: dict[str, Rule] = {
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "ReduceSum": _reduction(lambda _, __, g: g),
    "ReduceMean": _reduction(_mean),
    "ReduceMax": _reduction(_extreme),
    "ReduceMin": _reduction(_extreme),
    "ReduceProd": _reduction(_product),
    "ReduceL1": _reduction(lambda s, _, g: s.write.mul(g, s.write("Sign", s.x()))),
    "ReduceL2": _reduction(_l2),
    "ReduceSumSquare": _reduction(lambda s, _, g: s.write.mul(s.write.times(g, 2.0), s.x())),
    "ReduceLogSum": _reduction(lambda s, y, g: s.write.div(g, s.write("Exp", y))),
    "ReduceLogSumExp": _reduction(
        lambda s, y, g: s.write.mul(g, s.write("Exp", s.write.sub(s.x(), y)))
    ),
}
