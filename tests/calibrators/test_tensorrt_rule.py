"""TensorRT's calibration, replayed against scales that TensorRT itself wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrators import (
    Calibration,
    CalibrationCache,
    DoublingHistogram,
    TensorRTCollector,
    choose,
    with_shared_ranges,
)
from calibrators.errors import MergeError, MethodError

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 50


def word(scale: np.float32) -> str:
    return f"{int(scale.view(np.uint32)):x}"


def scale_of(values: object) -> np.float32:
    collector = TensorRTCollector(["t"])
    collector.observe({"t": np.asarray(values, np.float32)}, batch=0)
    return collector.calibration().scale("t")


@pytest.fixture(scope="module")
def lenet(shared: Path) -> TensorRTCollector:
    """Every tensor of a published LeNet over the 500 images of a TensorRT 7.2.2 calibration."""
    folder = shared / "data" / "golden-entropy"
    pixels = np.load(folder / "digits.npz")["images"].astype(np.float32) / np.float32(255)
    session = onnxruntime.InferenceSession(
        folder / "lenet.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    collector = TensorRTCollector(["data", *names])
    for number, start in enumerate(range(0, len(pixels), BATCH)):
        images = pixels[start : start + BATCH, None]
        outputs = dict(zip(names, session.run(names, {"data": images})))
        collector.observe({"data": images, **outputs}, batch=number)
    return collector


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    """The scales that TensorRT wrote, for LeNet and for tensors that need no network."""
    path = shared / "data" / "golden-entropy" / "expected.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("tensor", ["data", "conv1", "ip2"])
def test_lenet_keeps_the_bins_that_tensorrt_kept(
    lenet: TensorRTCollector, published: dict[str, Any], tensor: str
) -> None:
    expected = published["lenet"][tensor]
    histogram = lenet.doubling[tensor]
    assert histogram.kept_bins() == expected["index"]
    # float32 sums in another order: a few parts in 10**7
    assert histogram.range == pytest.approx(expected["range"], rel=4e-7)
    assert float(lenet.calibration().scale(tensor)) == pytest.approx(
        expected["threshold"] / 127, rel=4e-7
    )


def test_lenet_input_scale_to_the_bit(lenet: TensorRTCollector, published: dict[str, Any]) -> None:
    # the pixels are the same on every machine, so nothing is left to rounding
    assert word(lenet.calibration().scale("data")) == published["lenet"]["data"]["scale_hex"]


def test_pooling_shares_the_scale_of_its_input(
    lenet: TensorRTCollector, published: dict[str, Any]
) -> None:
    own = lenet.calibration()
    shared = with_shared_ranges(own, {"pool1": "conv1", "pool2": "conv2"})
    assert shared.scale("pool1") == shared.scale("conv1") != own.scale("pool1")
    assert float(shared.scale("pool1")) == pytest.approx(
        published["lenet"]["pool1"]["threshold"] / 127, rel=4e-7
    )
    assert shared.ranges["pool1"].note == "takes the range of 'conv1'"
    assert shared.ranges["pool1"].observed_amax == own.ranges["pool1"].observed_amax
    assert shared.ranges["ip2"] == own.ranges["ip2"]


def test_lenet_histograms_as_published(lenet: TensorRTCollector, shared: Path) -> None:
    stored = np.load(shared / "data" / "golden-entropy" / "histograms.npz")
    assert np.array_equal(lenet.doubling["data"].counts, stored["data"])
    for tensor in ("conv1", "ip2"):
        # a value beside a border may round to the other side of it
        moved = np.abs(lenet.doubling[tensor].counts - stored[tensor]).sum() / 2
        assert moved <= 1e-4 * stored[tensor].sum()


def weight_free_values() -> dict[str, np.ndarray]:
    def anchor_points(size: int) -> np.ndarray:
        sides = [np.arange(size // stride) + 0.5 for stride in (8, 16, 32)]
        return np.concatenate([np.concatenate([np.tile(s, s.size)] * 2) for s in sides])

    return {
        "sinusoid frequencies": np.exp(-np.arange(128) * np.log(10000) / 127),
        "yolo strides": np.repeat([8, 16, 32], [6400, 1600, 400]),
        "yolov5 anchors P3": np.array([10, 13, 16, 30, 33, 23]),
        "yolov5 anchors P4": np.array([30, 61, 62, 45, 59, 119]),
        "yolov5 anchors P5": np.array([116, 90, 156, 198, 373, 326]),
        "arange(80)": np.arange(80),
        "yolov8 anchor points, 640 pixels": anchor_points(640),
        "yolo11 anchor points, 1280 pixels": anchor_points(1280),
    }


# As TensorRT 5.1 to 10.14 wrote them into public calibration tables.
WORDS = {
    "sinusoid frequencies": "3bdf4e9d",
    "yolo strides": "3e810a14",
    "yolov5 anchors P3": "3e851265",
    "yolov5 anchors P4": "3f6feebd",
    "yolov5 anchors P5": "403c03af",
    "arange(80)": "3f1f4871",
    "yolov8 anchor points, 640 pixels": "3f204a85",
    "yolo11 anchor points, 1280 pixels": "3fa0cb8f",
}
CONSTANTS = {
    1.0: "3c010a14",
    2.0: "3c810a14",
    8.0: "3d810a14",
    0.5: "3b810a14",
    1.05: "3c077dc8",
    1.2: "3c1ad8e6",
    0.025: "394e7687",
    1.4142135381698608: "3c367d3d",
    64.0: "3f010a14",
    0.0: "0",
    float("inf"): "7f800000",
}


@pytest.mark.parametrize("name", WORDS)
def test_tensors_without_weights_to_the_bit(name: str) -> None:
    assert word(scale_of(weight_free_values()[name])) == WORDS[name]


@pytest.mark.parametrize("constant", CONSTANTS)
@pytest.mark.parametrize("share_of_zeros", [0, 9])
def test_constants_and_masks_to_the_bit(constant: float, share_of_zeros: int) -> None:
    values = np.append(np.full(10, constant), np.zeros(10 * share_of_zeros))
    assert word(scale_of(values)) == CONSTANTS[constant]


def test_every_published_scale_is_tested(published: dict[str, Any]) -> None:
    for entry in published["weight_free"]:
        words = {**WORDS, **{f"constant {value}": text for value, text in CONSTANTS.items()}}
        assert words[entry["name"]] == entry["scale_hex"]


@given(
    st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1), min_size=1, max_size=6
    )
)
def test_doubling_equals_counting_anew_in_the_final_range(batches: list[list[float]]) -> None:
    arrays = [np.array(batch, np.float32) for batch in batches]
    histogram = DoublingHistogram()
    for array in arrays:
        histogram.observe(array)
    magnitudes = np.abs(np.concatenate(arrays)).astype(np.float64)
    if histogram.range == 0:
        assert not magnitudes.any()
        return
    first = next(np.abs(array).max() for array in arrays if array.any())
    doublings = np.log2(histogram.range / float(first))
    assert doublings == int(doublings)
    assert histogram.range >= magnitudes.max() > (histogram.range / 2 if doublings else 0)
    # Halving a quotient is exact, so a bin of the final range holds just the bins it was made of;
    # only what equalled an earlier range was put below its end.
    bins = np.minimum(np.floor(magnitudes * 2048 / histogram.range), 2047).astype(int)
    moved = np.abs(histogram.counts - np.bincount(bins, minlength=2048)).sum() / 2
    assert moved <= len(arrays) * max(len(batch) for batch in batches) * (doublings > 0)
    assert histogram.counts.sum() == magnitudes.size


def test_the_first_batch_and_the_order_matter() -> None:
    rng = np.random.default_rng(3)
    small, large = rng.standard_normal(5000), 3 * rng.standard_normal(5000)
    amaxes = set()
    for order in ((small, large), (large, small)):
        histogram = DoublingHistogram()
        for batch in order:
            histogram.observe(batch)
        amaxes.add(histogram.amax())
    assert len(amaxes) == 2


def test_batches_of_zeros_set_no_range() -> None:
    histogram = DoublingHistogram()
    histogram.observe(np.zeros(10))
    assert (histogram.range, histogram.amax()) == (0, 0)
    histogram.observe(np.ones(10))
    assert histogram.range == 1
    assert histogram.counts[[0, 2047]].tolist() == [10, 10]


def test_infinity_is_kept_and_nan_ignored_and_both_reported() -> None:
    collector = TensorRTCollector(["mask", "spoilt"])
    mask = np.array([0, 1, -np.inf], np.float32)
    collector.observe({"mask": mask, "spoilt": np.array([np.nan, 1.0])}, batch=4)
    calibration = collector.calibration()
    assert calibration.ranges["mask"].amax == np.inf
    assert word(calibration.scale("spoilt")) == "3c010a14"
    assert Calibration.from_bytes(calibration.to_bytes()).ranges == calibration.ranges
    assert [entry.batch for entry in collector.statistics.non_finite] == [4, 4]


def test_tensorrts_rule_refuses_a_histogram_which_has_no_order() -> None:
    collector = TensorRTCollector(["t"])
    collector.observe({"t": np.ones(3)}, batch=0)
    with pytest.raises(MethodError, match="depends on the order of the batches"):
        choose(collector.statistics.histograms["t"], "entropy-tensorrt")
    assert collector.calibration().chosen_with("minmax").ranges["t"].amax == 1


def test_shared_ranges_follow_chains_and_cycles_are_refused() -> None:
    collector = TensorRTCollector(["a", "b", "zero"])
    arrays = {"a": np.ones(3), "b": np.full(3, 0.5), "zero": np.zeros(3)}
    collector.observe(arrays, batch=0)
    calibration = collector.calibration()
    shared = with_shared_ranges(calibration, {"d": "c", "c": "b", "b": "a", "e": "zero"})
    assert {shared.ranges[name].amax for name in "abcd"} == {calibration.ranges["a"].amax}
    assert shared.ranges["b"].maximum == 0.5
    assert shared.ranges["e"].amax == 0
    with pytest.raises(MergeError, match="'x' is to take the range of 'y', which has none"):
        with_shared_ranges(calibration, {"x": "y"})
    with pytest.raises(MergeError, match="its own range"):
        with_shared_ranges(calibration, {"b": "c", "c": "b"})


def test_the_cache_of_a_calibration(lenet: TensorRTCollector) -> None:
    calibration = with_shared_ranges(lenet.calibration(), {"pool1": "conv1", "pool2": "conv2"})
    lines = CalibrationCache.from_calibration(calibration, "7202").to_bytes().decode().splitlines()
    assert lines[:2] == ["TRT-7202-EntropyCalibration2", "data: 3c008912"]
    assert [line.split(": ")[0] for line in lines[1:]] == list(calibration.ranges)
