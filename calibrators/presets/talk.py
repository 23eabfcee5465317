"""Rules that follow the GTC 2017 talk closely: one-sided, 128 levels, outliers on the last bin.

They share their divergence with `calibrators.entropy` and differ in what they do with bin 0, in
which candidates they try and in how a number of bins becomes a threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators import entropy
from calibrators.regrid import magnitude_counts

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["gtc2017", "modelopt", "tpu_mlir"]

_NUM_BINS = 2048
_LEVELS = 128


def gtc2017(histogram: Histogram) -> tuple[float, str]:
    """The pseudo-code of the talk, taken literally: zeros stay in bin 0, from 128 to 2047 bins.

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

    The rule is TensorRT's, bin 0 taking the count of bin 1; the threshold is the upper edge of the
    last bin kept instead of half a bin more. In the tools the histogram's bins keep the width that
    the first batch gave them, so their threshold follows the first batch.

    Source: modelopt/torch/quantization/calib/histogram.py in
    https://github.com/NVIDIA/Model-Optimizer, and pytorch_quantization/calib/histogram.py in
    https://github.com/NVIDIA/TensorRT (tools/pytorch-quantization).
    """
    counts = _with_zeros(histogram)
    counts[0] = counts[1]
    return entropy.search(counts, _LEVELS) * histogram.observed_amax / _NUM_BINS, ""


def tpu_mlir(histogram: Histogram) -> tuple[float, str]:
    """Sophgo's TPU-MLIR: from 128 to 2048 bins in steps of 128.

    The manual does not say what becomes of bin 0 (kept here) and of equal candidates (the largest
    wins).

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
