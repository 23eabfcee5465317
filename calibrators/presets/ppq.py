"""OpenPPL's PPQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.presets.divergence import level_starts, spread
from calibrators.regrid import magnitude_counts

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["ppq"]

_NUM_BINS = 4096
_LEVELS = 128


def ppq(histogram: Histogram) -> tuple[float, str]:
    """``TorchHistObserver``: 4096 bins, candidates in steps of 128, the lowest 0.2 % cleared.

    Bins 0 to 7 are emptied and bin 8 set to one. The scale is the threshold divided by 128, so that
    127 steps end 1/128 below it.

    Source: ppq/quantization/observer/range.py in https://github.com/openppl-public/ppq
    """
    counts = magnitude_counts(histogram, _NUM_BINS)
    cleared = int(_NUM_BINS * 0.002)
    counts[:cleared] = 0
    counts[cleared] = 1
    candidates = range(_LEVELS, _NUM_BINS + 1, _LEVELS)
    kept = candidates[int(np.argmin([_divergence(counts, kept) for kept in candidates]))]
    return kept * histogram.observed_amax / _NUM_BINS * (_LEVELS - 1) / _LEVELS, ""


def _divergence(counts: np.ndarray, kept: int) -> float:
    plain = counts[:kept]
    p = plain / counts.sum()
    p[-1] += counts[kept:].sum() / counts.sum()
    q = spread(plain, plain > 0, level_starts(kept, _LEVELS)) * (plain > 0)
    q = q / q.sum()
    return float(np.sum(p * (np.log10(p + 1e-30) - np.log10(q + 1e-30))))
