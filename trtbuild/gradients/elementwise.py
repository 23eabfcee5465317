"""Gradients of arithmetic: element by element, operands broadcast in both directions.

The rules are those of calculus. At a kink the derivative is that of one side; equal operands of Min and Max
get equal shares of the gradient, as in PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step
    from trtbuild.gradients.writer import Writer

__all__ = ["RULES"]


def _broadcast(step: Step, gradients: Mapping[int, Callable[[], ir.Value]]) -> Gradients:
    """Return those of `gradients` that are wanted, each summed to the shape of its operand."""
    return {
        index: step.write.unbroadcast(make(), step.x(index), step.y)
        for index, make in gradients.items()
        if index in step.wanted
    }


def _add(step: Step) -> Gradients:
    return _broadcast(step, {index: lambda: step.g for index in range(len(step.node.inputs))})


def _sub(step: Step) -> Gradients:
    return _broadcast(step, {0: lambda: step.g, 1: lambda: step.write.neg(step.g)})


def _mul(step: Step) -> Gradients:
    w = step.write
    return _broadcast(
        step, {0: lambda: w.mul(step.g, step.x(1)), 1: lambda: w.mul(step.g, step.x(0))}
    )


def _div(step: Step) -> Gradients:
    w = step.write
    return _broadcast(
        step,
        {
            0: lambda: w.div(step.g, step.x(1)),
            1: lambda: w.neg(w.div(w.mul(step.g, step.y), step.x(1))),
        },
    )


def _pow(step: Step) -> Gradients:
    w = step.write
    base, exponent = step.x(0), step.x(1)

    def by_base() -> ir.Value:
        power = exponent if exponent.dtype == base.dtype else w.as_type_of(exponent, base)
        lower = w("Pow", base, w.plus(power, -1.0))
        return w.mul(step.g, w.mul(power, lower))

    def by_exponent() -> ir.Value:
        # 0 where the base is 0, as in PyTorch
        positive = w("Greater", base, w.number(0.0, base))
        logarithm = w("Log", w.where(positive, base, 1.0))
        return w.mul(step.g, w.mul(step.y, logarithm))

    return _broadcast(step, {0: by_base, 1: by_exponent})


def _mean(step: Step) -> Gradients:
    count = len(step.node.inputs)
    share = step.write.times(step.g, 1.0 / count)
    return _broadcast(step, {index: lambda: share for index in range(count)})


def _extreme(step: Step) -> Gradients:
    """Min and Max."""
    w, count = step.write, len(step.node.inputs)
    hits = [w.as_type_of(w("Equal", step.x(i), step.y), step.y) for i in range(count)]
    share = w.div(step.g, hits[0] if count == 1 else w("Sum", *hits))
    return _broadcast(step, {i: lambda i=i: w.mul(share, hits[i]) for i in range(count)})  # type: ignore[misc]


def _where(step: Step) -> Gradients:
    w, condition = step.write, step.x(0)
    return _broadcast(
        step,
        {
            1: lambda: w.masked(step.g, condition),
            2: lambda: w.masked(step.g, w("Not", condition)),
        },
    )


def _prelu(step: Step) -> Gradients:
    w, x = step.write, step.x()
    negative = w("Less", x, w.number(0.0, x))
    found = {}
    if 0 in step.wanted:
        found[0] = w("Where", negative, w.mul(step.g, step.x(1)), step.g, like=x)
    if 1 in step.wanted:
        by_slope = w.masked(w.mul(step.g, x), negative)
        found[1] = w.unbroadcast(by_slope, step.x(1), step.y)
    return found


def _mod(step: Step) -> Gradients:
    """Only for the dividend; the divisor is practically always constant."""
    return _broadcast(step, {0: lambda: step.g})


def _unary(derivative: Callable[[Writer, ir.Value, ir.Value], ir.Value]) -> Rule:
    """Return a rule from (writer, x, y) -> dy/dx."""

    def rule(step: Step) -> Gradients:
        return {0: step.write.mul(step.g, derivative(step.write, step.x(), step.y))}

    return rule


def _one_plus_square(w: Writer, x: ir.Value) -> ir.Value:
    return w.plus(w.mul(x, x), 1.0)


def _one_minus_square(w: Writer, x: ir.Value) -> ir.Value:
    return w.sub(w.number(1.0, x), w.mul(x, x))


def _erf(w: Writer, x: ir.Value) -> ir.Value:
    return w.times(w("Exp", w.neg(w.mul(x, x))), 2.0 / np.sqrt(np.pi))


RULES: dict[str, Rule] = {
    "Add": _add,
    "Sum": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Pow": _pow,
    "Mean": _mean,
    "Max": _extreme,
    "Min": _extreme,
    "Where": _where,
    "PRelu": _prelu,
    "Mod": _mod,
    "Neg": lambda step: {0: step.write.neg(step.g)},
    "Abs": _unary(lambda w, x, _: w("Sign", x)),
    "Exp": _unary(lambda _, __, y: y),
    "Log": lambda step: {0: step.write.div(step.g, step.x())},
    "Sqrt": lambda step: {0: step.write.times(step.write.div(step.g, step.y), 0.5)},
    "Reciprocal": _unary(lambda w, _, y: w.neg(w.mul(y, y))),
    "Erf": _unary(lambda w, x, _: _erf(w, x)),
    "Sin": _unary(lambda w, x, _: w("Cos", x)),
    "Cos": _unary(lambda w, x, _: w.neg(w("Sin", x))),
    "Tan": _unary(lambda w, _, y: _one_plus_square(w, y)),
    "Sinh": _unary(lambda w, x, _: w("Cosh", x)),
    "Cosh": _unary(lambda w, x, _: w("Sinh", x)),
    "Tanh": _unary(lambda w, _, y: _one_minus_square(w, y)),
    "Atan": _unary(lambda w, x, _: w("Reciprocal", _one_plus_square(w, x))),
    "Asin": _unary(lambda w, x, _: w("Reciprocal", w("Sqrt", _one_minus_square(w, x)))),
    "Acos": _unary(lambda w, x, _: w.neg(w("Reciprocal", w("Sqrt", _one_minus_square(w, x))))),
    "Asinh": _unary(lambda w, x, _: w("Reciprocal", w("Sqrt", _one_plus_square(w, x)))),
    "Acosh": _unary(lambda w, x, _: w("Reciprocal", w("Sqrt", w.plus(w.mul(x, x), -1.0)))),
    "Atanh": _unary(lambda w, x, _: w("Reciprocal", _one_minus_square(w, x))),
}
