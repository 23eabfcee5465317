"""Of several methods, the one whose threshold has the least expected error on the histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.errors import MethodError
from calibrators.grid import lower_edges
from calibrators.quantization_error import LEVELS
from calibrators.rules.entropy import entropy
from calibrators.rules.minmax import minmax
from calibrators.rules.mse import mse
from calibrators.rules.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calibrators.histogram import Histogram

__all__ = ["auto", "power_error"]

_CANDIDATES: Mapping[str, Callable[[Histogram], tuple[float, str]]] = {
    "entropy": entropy,
    "mse": mse,
    "percentile 99.999": lambda histogram: percentile(histogram, 99.999),
    "percentile 99.99": lambda histogram: percentile(histogram, 99.99),
    "percentile 99.9": lambda histogram: percentile(histogram, 99.9),
    "minmax": minmax,
}


def auto(histogram: Histogram, power: float = 1.75) -> tuple[float, str]:
    """The candidate with the least sum of |error|**power; of equal ones the first listed.

    Squared errors alone would always choose ``mse``; they make a few clipped values weigh more than
    they matter to what a network answers. 1.75 was never far from the best of four powers on four
    networks (docs/calibration-methods.md).

    Args:
        histogram: what was seen.
        power: of the error's magnitude, above 0; 2 is the squared error.

    Raises:
        MethodError: the power is not above 0.
    """
    if not power > 0:
        raise MethodError(f"power is {power:g}; it must be above 0.")
    choices = {name: rule(histogram)[0] for name, rule in _CANDIDATES.items()}
    errors = {name: power_error(histogram, amax, power) for name, amax in choices.items()}
    best = min(errors, key=errors.__getitem__)
    return choices[best], f"the threshold of {best}"


def power_error(histogram: Histogram, amax: float, power: float) -> float:
    """Sum over all values of |x - Q(x)|**power, each taken at the middle of its bin."""
    numbers, counts = histogram.magnitudes()
    upper = np.minimum(lower_edges(numbers + 1), histogram.observed_amax)
    middle = (lower_edges(numbers) + upper) / 2
    scale = amax / LEVELS
    quantized = np.minimum(np.rint(middle / scale), LEVELS) * scale
    return float(np.sum(counts * np.abs(middle - quantized) ** power))
