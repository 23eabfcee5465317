"""A norm with fixed statistics as one scale and one shift per channel.

    norm(x) = (x - mean) / sqrt(var + eps) * weight + bias  =  scale * x + shift
    scale   = weight / sqrt(var + eps)
    shift   = bias - mean * scale

All in float64: half-precision modules need it, and it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["TOLERANCE", "Affine", "CannotFoldError", "norm_affine"]

TOLERANCE = 1e-9
"""A right fold differs by about 1e-15 in float64, a wrong one by 1e-1, at any depth."""


class CannotFoldError(Exception):
    """A norm cannot be folded; the text is the reason in the report. Never leaves the fold.

    `norm` is the norm's path where only the one who raises knows it.
    """

    def __init__(self, reason: str, norm: str = "") -> None:
        super().__init__(reason)
        self.norm = norm


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift`` per channel: two float64 tensors ``[channels]``."""

    scale: torch.Tensor
    shift: torch.Tensor


def norm_affine(
    mean: torch.Tensor,
    var: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> Affine:
    """The affine form of a norm with these statistics; absent weight is 1, absent bias is 0.

    Raises:
        CannotFoldError: statistics that are not finite, or a variance that is not positive.
    """
    mean, var = mean.detach().double(), var.detach().double()
    if not (mean.isfinite().all() and var.isfinite().all()):
        raise CannotFoldError("its running statistics are not finite")
    if (var + eps <= 0).any():
        raise CannotFoldError("a running variance plus eps is not positive")
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach().double()
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias.detach().double()
    if not (scale.isfinite().all() and shift.isfinite().all()):
        raise CannotFoldError("its scale or shift is not finite")
    return Affine(scale, shift)
