"""PaddleSlim's KL observer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.presets.divergence import level_starts, relative_entropy, spread
from calibrators.regrid import signed_counts

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["paddleslim"]

_NUM_BINS = 2048
_LEVELS = 127


def paddleslim(histogram: Histogram) -> tuple[float, str]:
    """``KLObserver``: 2048 bins from minimum to maximum, 127 levels, no fewer than 1023 bins kept.

    The threshold is counted from zero, though the bins begin at the minimum: right only for tensors
    whose minimum is zero. All data are taken as one batch; the tool resamples its histogram as the
    range grows.

    Source: paddleslim/quant/observers/kl.py and base_hist.py in
    https://github.com/PaddlePaddle/PaddleSlim
    """
    if histogram.minimum == histogram.maximum:
        return histogram.observed_amax, "the rule has no answer for a constant; this is the maximum"
    counts = signed_counts(histogram, histogram.minimum, histogram.maximum, _NUM_BINS)
    width = (histogram.maximum - histogram.minimum) / _NUM_BINS
    first = (_NUM_BINS - 1) // 2
    candidates = [kept for kept in range(first, _NUM_BINS) if counts[kept - 1]]
    if not candidates:
        kept = int(np.flatnonzero(counts[: first + 1])[-1])
    else:
        kept = candidates[int(np.argmin([_divergence(counts, kept) for kept in candidates]))]
    return (kept + 0.5) * width, ""


def _divergence(counts: np.ndarray, kept: int) -> float:
    plain = counts[:kept]
    clipped = plain.copy()
    clipped[-1] += counts[kept:].sum()
    q = spread(plain, clipped > 0, level_starts(kept, _LEVELS)) * (clipped > 0)
    return relative_entropy(clipped, q)
