"""Other tools' rules: compared with the installed tools, else with their published peculiarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from calibrators import PRESETS, Histogram, TensorRTCollector, choose
from calibrators.errors import MethodError
from calibrators.presets.grids import magnitude_counts, signed_counts

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(21)
TENSORS = {
    "gaussian": RNG.standard_normal(50_000),
    "relu": np.maximum(RNG.standard_normal(50_000), 0),
    "laplace": RNG.laplace(size=50_000),
    "negative": -RNG.gamma(2, size=50_000),
}


def histogram_of(values: object) -> Histogram:
    histogram = Histogram()
    histogram.observe(np.asarray(values, np.float32))
    return histogram


@pytest.mark.parametrize("name", TENSORS)
def test_regridding_moves_no_value_beyond_its_own_bin(name: str) -> None:
    values = TENSORS[name].astype(np.float32)
    histogram = histogram_of(values)
    amax = histogram.observed_amax
    signed = signed_counts(histogram, -amax, amax, 2001)
    exact, edges = np.histogram(values.astype(np.float64), 2001, (-amax, amax))
    assert signed.sum() == values.size
    # a value may cross an edge only if our bin, 1/1024 of its magnitude wide, holds that edge
    beside = [np.count_nonzero(np.abs(values - e) <= np.abs(e) / 1023) for e in edges[1:-1]]
    assert np.all(np.abs(np.cumsum(signed - exact)[:-1]) <= beside)
    magnitudes = magnitude_counts(histogram, 2048)
    assert magnitudes.sum() == np.count_nonzero(values)
    assert np.all(magnitudes >= 0)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", TENSORS)
def test_every_rule_gives_a_threshold_and_says_no_wrong_thing(preset: str, name: str) -> None:
    histogram = histogram_of(TENSORS[name])
    threshold = choose(histogram, preset)
    if preset == "paddleslim":  # measures from zero what begins at the minimum
        assert 0 < threshold.amax <= 2.01 * histogram.observed_amax
    else:
        assert 0.06 * histogram.observed_amax < threshold.amax <= 1.01 * histogram.observed_amax
    assert threshold.method == preset


@pytest.mark.parametrize("preset", PRESETS)
def test_zeros_single_values_and_extremes_get_a_finite_threshold(preset: str) -> None:
    for values in ([0.0, 0.0], [-1.0], [0.5, 8.0], [0, 1e-40], [1e30, -1e30, 1]):
        histogram = histogram_of(values)
        assert 0 <= choose(histogram, preset).amax <= 2.01 * histogram.observed_amax


# The threshold of each for a tensor with one value, as a multiple of this value: half a bin more, the value
# itself, 127/128 of it, the largest candidate (2047 bins and a half), or the smallest (128 and a half).
CONSTANT = {
    "gtc2017": 1,
    "modelopt": 1,
    "tpu-mlir": 2048.5 / 2048,
    "mxnet": 1,
    "onnxruntime": 1,
    "ncnn": 128.5 / 2048,
    "mnn": 2047.5 / 2048,
    "caffe-int8": 128.5 / 2048,
    "easyquant": 128.5 / 2001,
    "ppq": 127 / 128,
    "paddleslim": 1,
}


@pytest.mark.parametrize("preset", CONSTANT)
def test_a_constant_gets_each_tools_own_threshold(preset: str) -> None:
    amax = choose(histogram_of(np.full(1000, 3.0)), preset).amax
    assert amax == pytest.approx(3 * CONSTANT[preset], rel=1e-6)


def test_the_talk_taken_literally_falls_for_the_zeros_of_a_relu() -> None:
    values = np.maximum(RNG.standard_normal(100_000) - 1.5, 0)
    histogram = histogram_of(values)
    assert choose(histogram, "gtc2017").amax < 0.2 * values.max()
    assert choose(histogram, "modelopt").amax > 0.8 * values.max()


@pytest.mark.parametrize("sizes", [(128, 128), (2048, 255), (1001, 128)])
@pytest.mark.parametrize("name", ["gaussian", "relu"])
def test_our_entropy_of_onnxruntime_equals_its_own(name: str, sizes: tuple[int, int]) -> None:
    num_bins, levels = sizes
    histogram = histogram_of(TENSORS[name])
    amax = np.float32(histogram.observed_amax)
    counts = signed_counts(histogram, -float(amax), float(amax), num_bins)
    edges = np.linspace(-float(amax), float(amax), num_bins + 1).astype(np.float32)
    collector = HistogramCollector("entropy", True, num_bins, levels, 99.99, "same")
    extremes = np.float32(histogram.minimum), np.float32(histogram.maximum)
    expected = collector.get_entropy_threshold((counts, edges, *extremes, amax), levels)
    chosen = choose(histogram, "onnxruntime", num_bins=num_bins, num_quantized_bins=levels)
    assert chosen.amax == pytest.approx(max(np.abs(expected)), rel=1e-6)


def test_onnxruntime_defaults_clip_nothing() -> None:
    for values in TENSORS.values():
        assert choose(histogram_of(values), "onnxruntime").clipped_share == 0
    with pytest.raises(MethodError, match="10 bins cannot be merged into 128 levels"):
        choose(histogram_of([1.0]), "onnxruntime", num_bins=10)


# Thresholds over TensorRT's on the input, the first convolution and the last product of a published
# LeNet, as measured with restatements of the tools that counted the values themselves.
LENET = {
    "gtc2017": (1.000, 1.000, 0.913),
    "mxnet": (1.000, 0.945, 0.884),
    "onnxruntime": (1.004, 1.485, 0.970),
    "ncnn": (1.002, 1.003, 0.920),
    "caffe-int8": (1.003, 1.206, 0.970),
    "easyquant": (1.003, 1.140, 0.931),
    "ppq": (0.996, 1.197, 0.963),
}


@pytest.fixture(scope="module")
def lenet(shared: Path) -> TensorRTCollector:
    folder = shared / "data" / "golden-entropy"
    pixels = np.load(folder / "digits.npz")["images"].astype(np.float32) / np.float32(255)
    session = ort.InferenceSession(folder / "lenet.onnx", providers=["CPUExecutionProvider"])
    collector = TensorRTCollector(["data", "conv1", "ip2"])
    for number, start in enumerate(range(0, 500, 50)):
        images = pixels[start : start + 50, None]
        conv1, ip2 = session.run(["conv1", "ip2"], {"data": images})
        collector.observe({"data": images, "conv1": conv1, "ip2": ip2}, batch=number)
    return collector


@pytest.mark.parametrize("preset", LENET)
def test_thresholds_of_lenet_relate_to_tensorrts_as_in_the_tools(
    lenet: TensorRTCollector, preset: str
) -> None:
    ours = lenet.calibration().amaxes
    ratios = [
        choose(histogram, preset).amax / ours[name]
        for name, histogram in lenet.statistics.histograms.items()
    ]
    # half a percent: what spreading values evenly over our bins may move
    np.testing.assert_allclose(ratios, LENET[preset], atol=0.005)
