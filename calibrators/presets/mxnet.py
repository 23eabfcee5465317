"""The two-sided rule of MXNet, which TVM took over, and the form of it that tutorials copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.presets.divergence import level_starts, relative_entropy, smoothed, spread
from calibrators.regrid import signed_counts

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["mxnet", "two_sided_4001"]

_LEVELS = 255


def mxnet(histogram: Histogram) -> tuple[float, str]:
    """Apache MXNet's ``calib_mode="entropy"`` for int8: 8001 bins, 255 levels.

    Levels are ``size // 255`` bins wide and the last one takes the rest: a slice of 509 bins is
    compared with 254 levels of one bin and one of 255. The left edge bin counts for P and not for
    Q. The first of equal candidates wins.

    Source: src/operator/quantization/calibrate.cc in https://github.com/apache/mxnet;
    python/tvm/relay/quantize/kl_divergence.py in https://github.com/apache/tvm (before 0.18).
    """
    return _search(histogram, _two_sided(histogram, 8001))


def two_sided_4001(histogram: Histogram) -> tuple[float, str]:
    """MXNet's rule on 4001 bins whose middle one is cleared, as found in tutorials on TensorRT's KL.

    Clearing the middle bin does away with the zeros, and with the small values beside them.

    Source: the first version of MXNet's python/mxnet/contrib/quantization.py, and what was made of
    it.
    """
    counts = _two_sided(histogram, 4001)
    counts[len(counts) // 2] = 0
    return _search(histogram, counts)


def _two_sided(histogram: Histogram, num_bins: int) -> np.ndarray:
    amax = histogram.observed_amax
    return signed_counts(histogram, -amax, amax, num_bins)


def _search(histogram: Histogram, counts: np.ndarray) -> tuple[float, str]:
    middle = len(counts) // 2
    half_widths = range(_LEVELS // 2, middle + 1)
    values = [_divergence(counts, middle - half, middle + half + 1) for half in half_widths]
    if np.isinf(values).all():
        return histogram.observed_amax, "the rule has no finite candidate; this is the maximum"
    half = half_widths[int(np.argmin(values))]
    return (2 * half + 1) / len(counts) * histogram.observed_amax, ""


def _divergence(counts: np.ndarray, start: int, stop: int) -> float:
    plain = counts[start:stop].copy()
    clipped = plain.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    plain[0] = 0
    candidate = spread(plain, plain > 0, level_starts(len(plain), _LEVELS))
    candidate[clipped == 0] = 0
    return relative_entropy(smoothed(clipped), smoothed(candidate))
