"""The range of one tensor: the chosen threshold, its expected error in INT8, and what was observed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibrators.quantization_error import LEVELS

__all__ = ["TensorRange"]


@dataclass(frozen=True)
class TensorRange:
    """The range of one tensor.

    Attributes:
        amax: the clipping point (threshold), a float32 value at or above 0; 0.0 for a tensor that is always
            zero, infinite if TensorRT would have no scale.
        observed_amax: the largest finite magnitude seen.
        minimum, maximum: the smallest and the largest finite value seen.
        method: the method that chose the range.
        note: what a user should know about this choice; may be empty.
        num_values: number of finite values seen, zeros included.
        num_zeros: number of zeros seen.
        clipped_share: share of all values beyond amax.
        vanished_share: share of the non-zero values that round to zero.
        sqnr_db: expected signal to quantization noise ratio in dB; infinite for a tensor of zeros.
    """

    amax: float
    observed_amax: float
    minimum: float
    maximum: float
    method: str
    note: str
    num_values: int
    num_zeros: int
    clipped_share: float = 0.0
    vanished_share: float = 0.0
    sqnr_db: float = float("inf")

    @property
    def scale(self) -> np.float32:
        """Step size for symmetric signed INT8, ``amax / 127`` as a float32 division."""
        scale: np.float32 = np.float32(self.amax) / np.float32(LEVELS)
        return scale
