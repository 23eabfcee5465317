"""Rules on bins of magnitudes with 128 levels: the GTC 2017 talk and its kin, PPQ, caffe-int8, ncnn, MNN.

The talk's rule and its kin use the divergence of `calibrators.entropy`; they differ in what they do with
bin 0, in the candidates, and in how a number of bins becomes a threshold.

In ncnn and MNN a level may begin or end inside a bin. A level's count is spread over its whole width, empty
bins included. So the cumulative sum of Q equals that of P at the level borders and is linear between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators import entropy
from calibrators.presets.grids import (
    level_starts,
    magnitude_counts,
    relative_entropy,
    signed_counts,
    smoothed,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibrators.histogram import Histogram

__all__ = ["caffe_int8", "easyquant", "gtc2017", "mnn", "modelopt", "ncnn", "ppq", "tpu_mlir"]


_NUM_BINS = 2048
_LEVELS = 128


def gtc2017(histogram: Histogram) -> tuple[float, str]:
    """The pseudo-code of the talk, literally: zeros stay in bin 0, candidates keep 128 to 2047 bins.

    Where half the values are zeros, as after a ReLU, bin 0 outweighs all others and the smallest
    candidate wins. The talk leaves open how levels are cut and which of equal candidates wins; both
    are as in `calibrators.entropy_reference`.

    Source: Szymon Migacz, "8-bit inference with TensorRT", GTC 2017, slides 34 to 38;
    https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf
    """
    counts = _with_zeros(histogram)
    values = entropy.divergences(counts, _LEVELS)[:-1]
    if np.isinf(values).all():
        return histogram.observed_amax, "the rule has no finite candidate; this is the maximum"
    kept = _LEVELS + len(values) - 1 - int(np.argmin(values[::-1]))
    return (kept + 0.5) * histogram.observed_amax / _NUM_BINS, ""


def modelopt(histogram: Histogram) -> tuple[float, str]:
    """NVIDIA's pytorch-quantization and ModelOpt, ``method="entropy"``, all data as one batch.

    The rule is TensorRT's, with the count of bin 1 in bin 0; the threshold is the upper edge of the
    last kept bin instead of half a bin more. In the tools the first batch sets the width of the bins,
    so their threshold depends on it.

    Source: modelopt/torch/quantization/calib/histogram.py in
    https://github.com/NVIDIA/Model-Optimizer, and pytorch_quantization/calib/histogram.py in
    https://github.com/NVIDIA/TensorRT (tools/pytorch-quantization).
    """
    counts = _with_zeros(histogram)
    counts[0] = counts[1]
    return entropy.search(counts, _LEVELS) * histogram.observed_amax / _NUM_BINS, ""


def tpu_mlir(histogram: Histogram) -> tuple[float, str]:
    """Sophgo's TPU-MLIR: candidates keep 128 to 2048 bins, in steps of 128.

    The manual does not say what happens to bin 0 (kept here) and which of equal candidates wins (here
    the largest).

    Source: https://tpumlir.org/docs/developer_manual/07_calibration.html
    """
    values = entropy.divergences(_with_zeros(histogram), _LEVELS)[::_LEVELS]
    last_least = len(values) - 1 - int(np.argmin(values[::-1]))
    kept = _LEVELS * (last_least + 1)
    return (kept + 0.5) * histogram.observed_amax / _NUM_BINS, ""


def _with_zeros(histogram: Histogram) -> np.ndarray:
    counts = magnitude_counts(histogram, _NUM_BINS)
    counts[0] += histogram.num_zeros
    return counts


_PPQ_BINS = 4096


def ppq(histogram: Histogram) -> tuple[float, str]:
    """``TorchHistObserver``: 4096 bins, candidates in steps of 128, the lowest 0.2 % cleared.

    Bins 0 to 7 are emptied and bin 8 set to one. The scale is the threshold divided by 128, so that
    127 steps end 1/128 below it.

    Source: ppq/quantization/observer/range.py in https://github.com/openppl-public/ppq
    """
    counts = magnitude_counts(histogram, _PPQ_BINS)
    cleared = int(_PPQ_BINS * 0.002)
    counts[:cleared] = 0
    counts[cleared] = 1
    candidates = range(_LEVELS, _PPQ_BINS + 1, _LEVELS)
    kept = candidates[int(np.argmin([_ppq_divergence(counts, kept) for kept in candidates]))]
    return kept * histogram.observed_amax / _PPQ_BINS * (_LEVELS - 1) / _LEVELS, ""


def _ppq_divergence(counts: np.ndarray, kept: int) -> float:
    plain = counts[:kept]
    p = plain / counts.sum()
    p[-1] += counts[kept:].sum() / counts.sum()
    q = spread(plain, plain > 0, level_starts(kept, _LEVELS)) * (plain > 0)
    q = q / q.sum()
    return float(np.sum(p * (np.log10(p + 1e-30) - np.log10(q + 1e-30))))


def caffe_int8(histogram: Histogram) -> tuple[float, str]:
    """BUG1989's caffe-int8-convert-tools: 2048 bins, empty bins get 1e-4 at the end.

    Negative values are not counted, though the range covers them. Bin 0 is removed, and the threshold
    is not corrected for that. Q is 0 in the last bin.

    Source: caffe-int8-convert-tool-dev-weight.py in
    https://github.com/BUG1989/caffe-int8-convert-tools
    """
    return _caffe_search(histogram, 2048, np.asarray)


def easyquant(histogram: Histogram) -> tuple[float, str]:
    """DeepGlint's EasyQuant: like `caffe_int8`, with 2001 bins, and P and Q smoothed first.

    Source: tools/caffe_quanttable_e2e.py in https://github.com/deepglint/EasyQuant
    """
    return _caffe_search(histogram, 2001, smoothed)


def _caffe_search(
    histogram: Histogram, num_bins: int, smooth: Callable[[np.ndarray], np.ndarray | None]
) -> tuple[float, str]:
    amax = histogram.observed_amax
    counts = signed_counts(histogram, -amax, amax, 2 * num_bins)[num_bins:][1:]
    if not counts.any():
        return amax, "the rule counts positive values only; this is the maximum"
    candidates = range(_LEVELS, len(counts))
    values = [_caffe_divergence(counts, kept, smooth) for kept in candidates]
    return (candidates[int(np.argmin(values))] + 0.5) * amax / num_bins, ""


def _caffe_divergence(
    counts: np.ndarray, kept: int, smooth: Callable[[np.ndarray], np.ndarray | None]
) -> float:
    plain = counts[:kept]
    clipped = plain.copy()
    clipped[-1] += counts[kept:].sum()
    filled = clipped > 0
    filled[-1] = False
    q = spread(plain, filled, level_starts(kept, _LEVELS))
    q[~filled] = 0
    smooth_p, smooth_q = smooth(clipped), smooth(q)
    if smooth_p is None or smooth_q is None:
        return float("inf")
    return relative_entropy(
        np.where(smooth_p == 0, 1e-4, smooth_p), np.where(smooth_q == 0, 1e-4, smooth_q)
    )


def ncnn(histogram: Histogram) -> tuple[float, str]:
    """Tencent's ``ncnn2table`` with ``method=kl``: 1e-4 is added to every bin of P and Q.

    Zeros are not counted. Compared with 1e-4 the shares are so small that tensors with few values, or
    like the output of a softmax, get the smallest threshold, 0.063 times the maximum.

    Source: tools/quantize/ncnn2table.cpp in https://github.com/Tencent/ncnn
    """
    shares = _shares(magnitude_counts(histogram, _NUM_BINS))
    return _ncnn_search(histogram, shares, added=1e-4)


def mnn(histogram: Histogram) -> tuple[float, str]:
    """Alibaba's MNN with ``feature_quantize_method="KL"``, the whole tensor as one channel.

    Every bin starts at 1e-7, and Q sums to the share that is not clipped. Not reproduced: the tool
    takes the maximum for feature maps of less than 100 pixels, which a histogram does not know, and
    gives no scale below 1e-5.

    Source: tools/quantization/TensorStatistic.cpp in https://github.com/alibaba/MNN
    """
    shares = _shares(magnitude_counts(histogram, _NUM_BINS) + 1e-7)
    return _ncnn_search(histogram, shares, added=0.0)


def _shares(counts: np.ndarray) -> np.ndarray:
    shares: np.ndarray = counts / counts.sum()
    return shares


def _ncnn_search(histogram: Histogram, shares: np.ndarray, added: float) -> tuple[float, str]:
    candidates = range(_LEVELS, _NUM_BINS)
    below = np.concatenate([[0.0], np.cumsum(shares)])
    values = [_ncnn_divergence(shares, below, kept, added) for kept in candidates]
    kept = candidates[int(np.argmin(values))]
    return (kept + 0.5) * histogram.observed_amax / _NUM_BINS, ""


def _ncnn_divergence(shares: np.ndarray, below: np.ndarray, kept: int, added: float) -> float:
    bins = np.arange(kept + 1)
    borders = np.arange(_LEVELS + 1) * (kept / _LEVELS)
    q = np.diff(np.interp(bins, borders, np.interp(borders, bins, below[: kept + 1]))) + added
    p = shares[:kept] + added
    p[-1] += 1.0 - below[kept]
    with np.errstate(divide="ignore"):  # where Q underflows to 0, P is nearly 0
        return float(np.sum(p * np.log(p / q)))
