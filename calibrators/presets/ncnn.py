"""ncnn and MNN: levels with fractional borders, which share bins with their neighbours.

A level's count is spread over its whole width, empty bins included. So the cumulative sum of Q is
the cumulative sum of P at the level borders, with straight lines between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.regrid import magnitude_counts

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["mnn", "ncnn"]

_NUM_BINS = 2048
_LEVELS = 128


def ncnn(histogram: Histogram) -> tuple[float, str]:
    """Tencent's ``ncnn2table`` with ``method=kl``: 1e-4 is added to every bin of P and Q.

    Zeros are not counted. The shares are so small beside 1e-4 that tensors of few values and
    tensors like a softmax's output get the smallest threshold, 0.063 times the maximum.

    Source: tools/quantize/ncnn2table.cpp in https://github.com/Tencent/ncnn
    """
    shares = _shares(magnitude_counts(histogram, _NUM_BINS))
    return _search(histogram, shares, added=1e-4)


def mnn(histogram: Histogram) -> tuple[float, str]:
    """Alibaba's MNN with ``feature_quantize_method="KL"``, the whole tensor as one channel.

    Every bin begins with 1e-7 values, and Q keeps the weight of what is not clipped. The tool takes
    the maximum for maps of less than 100 pixels and gives no scale below 1e-5, which a histogram
    cannot tell.

    Source: tools/quantization/TensorStatistic.cpp in https://github.com/alibaba/MNN
    """
    shares = _shares(magnitude_counts(histogram, _NUM_BINS) + 1e-7)
    return _search(histogram, shares, added=0.0)


def _shares(counts: np.ndarray) -> np.ndarray:
    shares: np.ndarray = counts / counts.sum()
    return shares


def _search(histogram: Histogram, shares: np.ndarray, added: float) -> tuple[float, str]:
    candidates = range(_LEVELS, _NUM_BINS)
    below = np.concatenate([[0.0], np.cumsum(shares)])
    values = [_divergence(shares, below, kept, added) for kept in candidates]
    kept = candidates[int(np.argmin(values))]
    return (kept + 0.5) * histogram.observed_amax / _NUM_BINS, ""


def _divergence(shares: np.ndarray, below: np.ndarray, kept: int, added: float) -> float:
    bins = np.arange(kept + 1)
    borders = np.arange(_LEVELS + 1) * (kept / _LEVELS)
    q = np.diff(np.interp(bins, borders, np.interp(borders, bins, below[: kept + 1]))) + added
    p = shares[:kept] + added
    p[-1] += 1.0 - below[kept]
    with np.errstate(divide="ignore"):  # where Q underflows to nothing, P is next to nothing
        return float(np.sum(p * np.log(p / q)))
