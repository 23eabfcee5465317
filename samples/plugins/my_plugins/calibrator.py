"""A calibrator: from the histogram of one tensor to its amax, the largest magnitude in INT8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from calibrators import Histogram


def six_sigma(histogram: Histogram, sigmas: float = 6.0) -> tuple[float, str]:
    """Return `sigmas` root mean squares, but never more than the largest magnitude seen.

    Args:
        histogram: the tensor's values in the calibration.
        sigmas: number of root mean squares; ``method_options = { sigmas = 5 }`` in a recipe.

    Returns:
        The amax, and a note for the report (empty for none).
    """
    lower, upper, counts = histogram.bins()
    mean_square = float((((lower + upper) / 2) ** 2 * counts).sum()) / histogram.num_values
    amax = sigmas * float(np.sqrt(mean_square))
    if amax >= histogram.observed_amax:
        return histogram.observed_amax, ""
    return amax, f"{sigmas:g} root mean squares"
