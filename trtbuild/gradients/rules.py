"""Maps operators of the ONNX domain to their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.gradients import (
    activations,
    convolution,
    elementwise,
    linear,
    movement,
    normalization,
    pooling,
    reductions,
    resampling,
)

if TYPE_CHECKING:
    from trtbuild.gradients.step import Rule

__all__ = ["CHOOSING", "FLAT", "OF_UNKNOWN_SIZE", "RULES"]

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **activations.RULES,
    **linear.RULES,
    **convolution.RULES,
    **pooling.RULES,
    **reductions.RULES,
    **movement.RULES,
    **resampling.RULES,
    **normalization.RULES,
}

FLAT = frozenset(
    {
        "And", "Ceil", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "IsInf",
        "IsNaN", "Less", "LessOrEqual", "Not", "Or", "RandomNormalLike", "RandomUniformLike", "Round",
        "Shape", "Sign", "Size", "Xor",
    }
)  # fmt: skip
"""Small changes of operands do not change their results: the gradient is zero, as in PyTorch."""

OF_UNKNOWN_SIZE = frozenset({"Compress", "NonMaxSuppression", "NonZero", "StringSplit", "Unique"})
"""The sizes of their results depend on the values of their operands."""

CHOOSING = OF_UNKNOWN_SIZE | frozenset({"ArgMax", "ArgMin", "Bernoulli", "Multinomial"})
"""Their results are choices (indices), so no gradient tells how another choice would change the output."""
