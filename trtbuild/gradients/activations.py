"""Gradients of activations, Softmax and LogSoftmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _greater(step: Step, value: ir.Value, bound: float) -> ir.Value:
    return step.write("Greater", value, step.write.number(bound, value))


def _relu(step: Step) -> Gradients:
    return {0: step.write.masked(step.g, _greater(step, step.y, 0.0))}


def _thresholded_relu(step: Step) -> Gradients:
    return {0: step.write.masked(step.g, _greater(step, step.x(), step.attribute("alpha", 1.0)))}


def _leaky_relu(step: Step) -> Gradients:
    w = step.write
    slope = step.attribute("alpha", 0.01)
    return {
        0: w("Where", _greater(step, step.x(), 0.0), step.g, w.times(step.g, slope), like=step.g)
    }


def _clip(step: Step) -> Gradients:
    """The gradient passes where x was not clipped, also on a bound. The bounds count as constants."""
    return {0: step.write.masked(step.g, step.write("Equal", step.x(), step.y))}


def _sigmoid(step: Step) -> Gradients:
    w, y = step.write, step.y
    return {0: w.mul(step.g, w.sub(y, w.mul(y, y)))}


def _hard_sigmoid(step: Step) -> Gradients:
    w, y = step.write, step.y
    inside = w("And", _greater(step, y, 0.0), w("Less", y, w.number(1.0, y)))
    return {0: w.masked(w.times(step.g, step.attribute("alpha", 0.2)), inside)}


def _hard_swish(step: Step) -> Gradients:
    """Y = x clip(x / 6 + 1/2, 0, 1)."""
    w, x = step.write, step.x()
    slope = w.plus(w.times(x, 1.0 / 3.0), 0.5)
    above, below = _greater(step, x, 3.0), w("Less", x, w.number(-3.0, x))
    inside = w("Where", above, w.number(1.0, x), w.masked(slope, w("Not", below)), like=x)
    return {0: w.mul(step.g, inside)}


def _elu(step: Step) -> Gradients:
    """Y = alpha (exp(x) - 1) below zero, so the slope there is y + alpha."""
    w = step.write
    below = w.mul(step.g, w.plus(step.y, step.attribute("alpha", 1.0)))
    return {0: w("Where", _greater(step, step.x(), 0.0), step.g, below, like=step.g)}


def _selu(step: Step) -> Gradients:
    w = step.write
    alpha = step.attribute("alpha", 1.67326319217681884765625)
    gamma = step.attribute("gamma", 1.05070102214813232421875)
    below = w.mul(step.g, w.plus(step.y, alpha * gamma))
    above = w.times(step.g, gamma)
    return {0: w("Where", _greater(step, step.x(), 0.0), above, below, like=step.g)}


def _softplus(step: Step) -> Gradients:
    return {0: step.write.mul(step.g, step.write("Sigmoid", step.x()))}


def _softsign(step: Step) -> Gradients:
    w = step.write
    root = w.plus(w("Abs", step.x()), 1.0)
    return {0: w.div(step.g, w.mul(root, root))}


def _softmax(step: Step) -> Gradients:
    """Dx = y (g - sum(g y)) along the axis."""
    w = step.write
    weighted = w.mul(step.g, step.y)
    total = w.sum_over(weighted, [step.attribute("axis", -1)])
    return {0: w.sub(weighted, w.mul(step.y, total))}


def _log_softmax(step: Step) -> Gradients:
    """Dx = g - softmax(x) sum(g) along the axis."""
    w = step.write
    total = w.sum_over(step.g, [step.attribute("axis", -1)])
    return {0: w.sub(step.g, w.mul(w("Exp", step.y), total))}


RULES: dict[str, Rule] = {
    "Relu": _relu,
    "ThresholdedRelu": _thresholded_relu,
    "LeakyRelu": _leaky_relu,
    "Clip": _clip,
    "Sigmoid": _sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Elu": _elu,
    "Selu": _selu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
