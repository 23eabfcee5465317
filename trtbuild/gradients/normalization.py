"""Gradients of normalizations; mean and deviation are computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.attributes import is_inference_batch_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.gradients.step import Gradients, Rule, Step

__all__ = ["RULES"]


def _batch_normalization(step: Step) -> Gradients:
    """The stored statistics count as constants."""
    if not is_inference_batch_norm(step.node):
        raise NoRuleError("training_mode")
    w, x = step.write, step.x()
    deviation = w("Sqrt", w.plus(step.x(4), step.attribute("epsilon", 1e-5)))
    factor = w.div(step.x(1), deviation)
    factor = w.inferred(factor, *_channel_shape(step.rank(x)))
    return {0: w.mul(step.g, factor)}


def _channel_shape(rank: int) -> list[int]:
    return [-1, *(1,) * (rank - 2)]


def _normalized(step: Step, weighted: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    """Return the gradient of x in z = (x - mean) / deviation over `axes`, given that of z.

    dx = (dz - mean(dz) - z mean(dz z)) / deviation (Ba, Kiros and Hinton, Layer Normalization, 2016).
    """
    w, x = step.write, step.x()
    sums = w.sum_over(x, axes)
    ratio = w.div(*(w.as_type_of(w("Size", one), x) for one in (sums, x)))  # 1 / elements

    def mean(value: ir.Value) -> ir.Value:
        return w.mul(w.sum_over(value, axes), ratio)

    centred = w.sub(x, w.mul(sums, ratio))
    deviation = w("Sqrt", w.plus(mean(w.mul(centred, centred)), epsilon))
    z = w.div(centred, deviation)
    inner = w.add(mean(weighted), w.mul(z, mean(w.mul(weighted, z))))
    return w.div(w.sub(weighted, inner), deviation)


def _layer_normalization(step: Step) -> Gradients:
    count = step.rank(step.x())
    axes = range(step.attribute("axis", -1) % count, count)
    weighted = step.write.mul(step.g, step.x(1))
    return {0: _normalized(step, weighted, axes, step.attribute("epsilon", 1e-5))}


def _instance_normalization(step: Step) -> Gradients:
    w, count = step.write, step.rank(step.x())
    weighted = w.mul(step.g, w.inferred(step.x(1), *_channel_shape(count)))
    return {0: _normalized(step, weighted, range(2, count), step.attribute("epsilon", 1e-5))}


def _rms_normalization(step: Step) -> Gradients:
    """Y = s z with z = x / rms(x): as above without the mean (Zhang and Sennrich, 2019)."""
    w, x, count = step.write, step.x(), step.rank(step.x())
    axes = range(step.attribute("axis", -1) % count, count)
    weighted = w.mul(step.g, step.x(1))
    squares = w.mul(x, x)
    total = w.sum_over(squares, axes)
    ratio = w.div(*(w.as_type_of(w("Size", one), x) for one in (total, x)))
    root = w("Sqrt", w.plus(w.mul(total, ratio), step.attribute("epsilon", 1e-5)))
    z = w.div(x, root)
    mean = w.mul(w.sum_over(w.mul(weighted, z), axes), ratio)
    return {0: w.div(w.sub(weighted, w.mul(z, mean)), root)}


def _local_response(step: Step) -> Gradients:
    """Y = x d^-beta with d = bias + alpha / size * (sum of squares over `size` channels).

    dx = g d^-beta - 2 alpha beta / size * x * (g x d^(-beta - 1) summed over the channels whose window has x)
    (Krizhevsky, Sutskever and Hinton, ImageNet classification, 2012, section 3.3).
    """
    w, x, size = step.write, step.x(), int(step.attribute("size"))
    alpha, beta = step.attribute("alpha", 1e-4), step.attribute("beta", 0.75)
    front, behind = (size - 1) // 2, size // 2
    squares = _over_channels(step, w.mul(x, x), size, front, behind)
    d = w.plus(w.times(squares, alpha / size), step.attribute("bias", 1.0))
    power = w("Pow", d, w.number(-beta, x))
    seen = w.div(w.mul(w.mul(step.g, x), power), d)
    back = w.mul(x, _over_channels(step, seen, size, behind, front))
    return {0: w.sub(w.mul(step.g, power), w.times(back, 2.0 * alpha * beta / size))}


def _over_channels(step: Step, value: ir.Value, size: int, front: int, behind: int) -> ir.Value:
    """Return sums over neighbouring channels, as `size` times an average pooling along the channels."""
    w = step.write
    plane = w("Reshape", value, w.joined(w.integers(0, 1), w.size_of(value, 1), w.integers(-1)))
    summed = w(
        "AveragePool", plane, kernel_shape=[size, 1], pads=[front, 0, behind, 0],
        count_include_pad=1,
    )  # fmt: skip
    return w.times(w.reshape(summed, w.shape(step.x())), float(size))


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "InstanceNormalization": _instance_normalization,
    "RMSNormalization": _rms_normalization,
    "LRN": _local_response,
}
