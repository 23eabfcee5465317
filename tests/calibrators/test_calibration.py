"""Collecting many tensors, calibration files, merging parts."""

from __future__ import annotations

import base64
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrators import (
    Calibration,
    Collector,
    Histogram,
    NonFinite,
    TensorRange,
    merge_calibrations,
)
from calibrators.calibration_file import FORMAT
from calibrators.errors import CalibrationFileError, MergeError, MethodError, ObservationError
from calibrators.grid import lower_edges

NAMES = ("input", "relu: 1", "überall")


def batches(num_images: int = 24) -> np.ndarray:
    """Images of three tensors, ``float32[images, 3, 50]``."""
    images = np.random.default_rng(11).standard_normal((num_images, 3, 50)).astype(np.float32)
    images[:, 1] = np.maximum(images[:, 1], 0)
    return images


def collect(images: np.ndarray, batch_size: int) -> Collector:
    collector = Collector(NAMES)
    for start in range(0, len(images), batch_size):
        portion = images[start : start + batch_size]
        arrays = {name: portion[:, number] for number, name in enumerate(NAMES)}
        collector.observe(arrays, batch=start // batch_size)
    return collector


def calibrate(images: np.ndarray, batch_size: int = 8, **provenance: str) -> Calibration:
    histograms = collect(images, batch_size).histograms
    return Calibration.from_histograms(histograms, provenance=provenance)


@given(st.permutations(range(24)), st.integers(1, 24), st.integers(0, 24))
@settings(max_examples=15)
def test_order_batches_and_shards_give_the_same_file(
    order: list[int], batch_size: int, cut: int
) -> None:
    images = batches()
    whole = calibrate(images)
    shuffled = images[order]
    parts = [calibrate(shuffled[:cut], batch_size)] if cut else []
    parts += [calibrate(shuffled[cut:], batch_size)] if cut < 24 else []
    parts = [Calibration.from_bytes(part.to_bytes(histograms=True)) for part in parts]
    for merged in (merge_calibrations(parts), merge_calibrations(parts[::-1])):
        assert merged.to_bytes(histograms=True) == whole.to_bytes(histograms=True)
        assert merged.to_bytes() == whole.to_bytes()


def test_merged_collectors_equal_one() -> None:
    images = batches()
    merged = collect(images[:5], 2).merge(collect(images[5:], 3))
    assert merged.histograms == collect(images, 8).histograms
    assert pickle.loads(pickle.dumps(merged)).histograms == merged.histograms


def test_a_file_gives_back_what_was_written() -> None:
    calibration = calibrate(batches(), model="sha256:1")
    read = Calibration.from_bytes(calibration.to_bytes(histograms=True))
    assert dict(read.ranges) == dict(calibration.ranges)
    assert read.histograms == dict(calibration.histograms or {})
    assert read.provenance == {"model": "sha256:1"}
    ranges_only = Calibration.from_bytes(calibration.to_bytes())
    assert ranges_only.histograms is None
    assert dict(ranges_only.ranges) == dict(calibration.ranges)


def plain_leb128(number: int) -> list[int]:
    low, rest = number & 0x7F, number >> 7
    return [low | 0x80, *plain_leb128(rest)] if rest else [low]


def test_bins_are_written_as_the_page_on_the_format_says() -> None:
    numbers = np.cumsum([0, 1, 127, 128, 255, 256, 2**14, 2**14 - 1])
    counts = np.array([1, 127, 128, 2**8, 2**14 - 1, 2**14, 2**35, 2**62])
    largest = lower_edges(numbers)[-1]
    histogram = Histogram.from_bins(
        numbers, counts, num_zeros=0, num_nan=0, num_inf=0, minimum=0.0, maximum=float(largest)
    )
    written = json.loads(
        Calibration.from_histograms({"x": histogram}, "minmax").to_bytes(histograms=True)
    )
    pairs = zip(np.diff(numbers, prepend=0).tolist(), counts.tolist())
    wanted = [octet for pair in pairs for number in pair for octet in plain_leb128(number)]
    assert base64.b64decode(written["tensors"]["x"]["histogram"]["bins"]) == bytes(wanted)


def test_texts_that_look_like_bins_stay_as_they_are() -> None:
    names = ["bins", 'a "bins": ""', "ordinary"]
    collector = Collector(names)
    collector.observe({name: np.float32([0.5, len(name)]) for name in names}, batch=0)
    provenance = {"bins": "", "data": '"bins": ""'}
    calibration = Calibration.from_histograms(collector.histograms, "minmax", provenance=provenance)
    written = calibration.to_bytes(histograms=True)
    document = json.loads(written)
    assert json.dumps(document, indent=1, ensure_ascii=False) + "\n" == written.decode()
    assert document["provenance"] == provenance
    assert Calibration.from_bytes(written) == calibration


def test_ranges_say_what_was_seen() -> None:
    images = batches()
    entry = calibrate(images).ranges["relu: 1"]
    assert entry.minimum == 0
    assert entry.maximum == entry.observed_amax == images[:, 1].max()
    assert entry.num_values == images[:, 1].size
    assert entry.num_zeros == np.count_nonzero(images[:, 1] == 0)
    assert entry.method == "entropy"


def test_scale_is_a_float32_division() -> None:
    entry = TensorRange(1.2000000476837158, 1.2, 0, 1.2, "minmax", "", 1, 0)
    calibration = Calibration("minmax", {"x": entry})
    assert calibration.scale("x") == np.float32(1.2) / np.float32(127)
    assert calibration.scale("x").dtype == np.float32


def test_other_methods_can_be_chosen_later() -> None:
    calibration = calibrate(batches())
    later = Calibration.from_bytes(calibration.to_bytes(histograms=True)).chosen_with("minmax")
    assert all(entry.amax == entry.observed_amax for entry in later.ranges.values())
    with pytest.raises(MergeError, match="holds ranges only"):
        calibration.without_histograms().chosen_with("minmax")
    with pytest.raises(MethodError):
        calibration.chosen_with("nothing")


def test_a_tensor_without_any_value_keeps_its_range() -> None:
    calibration, nothing = calibrate(batches()), TensorRange(0, 0, 0, 0, "none", "no value", 0, 0)
    assert calibration.histograms is not None
    empty = replace(
        calibration,
        ranges={**calibration.ranges, "empty": nothing},
        histograms={**calibration.histograms, "empty": Histogram()},
    )
    later = empty.chosen_with("minmax")
    assert later.ranges == {**calibration.chosen_with("minmax").ranges, "empty": nothing}
    assert later.chosen_with("mse").ranges["empty"] == nothing
    assert merge_calibrations([empty, empty]).ranges["empty"] == nothing
    alone = replace(empty, ranges={"empty": nothing}, histograms={"empty": Histogram()})
    with pytest.raises(MethodError):
        alone.chosen_with("nothing")


def test_the_file_does_not_depend_on_the_order_of_names() -> None:
    histograms = collect(batches(), 8).histograms
    backwards = dict(reversed(histograms.items()))
    one, other = (Calibration.from_histograms(some) for some in (histograms, backwards))
    assert one.to_bytes(histograms=True) == other.to_bytes(histograms=True)


def test_non_finite_values_are_found_by_tensor_and_first_batch() -> None:
    spoilt = batches()
    spoilt[13, 0, :3] = np.nan
    spoilt[21, 0, 0] = np.nan
    spoilt[5, 2, 0] = -np.inf
    found = [NonFinite("input", "nan", 3, 4), NonFinite("überall", "inf", 1, 1)]
    assert collect(spoilt, 4).non_finite == found
    later, earlier = Collector(["t"]), Collector(["t"])
    later.observe({"t": np.array([np.inf])}, batch=7)
    earlier.observe({"t": np.array([np.inf, np.inf])}, batch=2)
    assert later.merge(earlier).non_finite == [NonFinite("t", "inf", 2, 3)]


def test_nothing_is_counted_of_a_batch_that_is_refused() -> None:
    collector = Collector(["a", "b"])
    for other in ({"b": np.ones(2, np.int64)}, {"c": np.ones(2)}):
        with pytest.raises(ObservationError):
            collector.observe({"a": np.ones(2), **other}, batch=0)
    assert collector.histograms["a"].num_values == 0


def test_wrong_tensors_are_named() -> None:
    collector = Collector(["a"])
    with pytest.raises(ObservationError, match="tensor 'b' is not among"):
        collector.observe({"b": np.zeros(1)}, batch=0)
    with pytest.raises(ObservationError, match="tensor 'a': values of type int64"):
        collector.observe({"a": np.zeros(1, np.int64)}, batch=0)
    with pytest.raises(ObservationError, match="tensor 'a': no finite value"):
        Calibration.from_histograms(collector.histograms)
    with pytest.raises(MergeError, match="'b' is in one of them only"):
        collector.merge(Collector(["a", "b"]))


def test_parts_that_do_not_belong_together_are_refused() -> None:
    one = calibrate(batches(), model="sha256:1")
    with pytest.raises(MergeError, match="part 2 has another model than part 1: sha256:2"):
        merge_calibrations([one, calibrate(batches(), model="sha256:2")])
    whole = merge_calibrations([one, calibrate(batches(), model="sha256:2")], {"model": "both"})
    assert whole.provenance == {"model": "both"}
    with pytest.raises(MergeError, match="part 3 was made with minmax"):
        merge_calibrations([one, one, one.chosen_with("minmax")])
    with pytest.raises(MergeError, match="ranges only"):
        merge_calibrations([one, one.without_histograms()])
    histograms = dict(one.histograms or {})
    del histograms["input"]
    fewer = Calibration.from_histograms(histograms)
    with pytest.raises(MergeError, match="other tensors than part 1, for example 'input'"):
        merge_calibrations([one, fewer])
    with pytest.raises(MergeError, match="no part"):
        merge_calibrations([])


@given(st.data())
@settings(max_examples=60)
def test_no_damage_goes_further_than_an_error(data: st.DataObject) -> None:
    content = bytearray(calibrate(batches(2)).to_bytes(histograms=True))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(32, 126))
    try:
        read = Calibration.from_bytes(bytes(content))
    except CalibrationFileError:
        return
    for histogram in (read.histograms or {}).values():
        assert histogram.magnitudes()[1].sum() + histogram.num_zeros == histogram.num_values


def test_damaged_files_are_refused_with_the_place() -> None:
    good = calibrate(batches()).to_bytes(histograms=True)

    def damaged(change: object, *path: str) -> bytes:
        document = json.loads(good)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = change
        return json.dumps(document).encode()

    for content, message in [
        (b"", "not a calibration file"),
        (b"\xff\xfe", "not a calibration file"),
        (good[: len(good) // 2], "not a calibration file"),
        (b"[]", f'does not begin with "{FORMAT}"'),
        (damaged("other", "format"), "does not begin with"),
        (damaged(2, "version"), "version 2, and this program reads up to 1"),
        (damaged([], "tensors"), "no dict 'tensors'"),
        (damaged(3, "tensors", "input"), "tensor 'input' is not an object"),
        (damaged("1", "tensors", "input", "amax"), "'amax' of tensor 'input'"),
        (damaged(-1.0, "tensors", "input", "amax"), "amax -1.0 of tensor 'input'"),
        (damaged(0.1, "tensors", "input", "amax"), "is not a float32 value"),
        (damaged(3, "tensors", "input", "num_values"), "counts 1200 values instead of 3"),
        (damaged("!", "tensors", "input", "histogram", "bins"), "histogram of tensor 'input'"),
        (damaged("gICA", "tensors", "input", "histogram", "bins"), "middle of a number"),
        (damaged("AAA=", "tensors", "input", "histogram", "bins"), "out of order, or empty"),
        (damaged("AQ==", "tensors", "input", "histogram", "bins"), "histogram of tensor 'input'"),
        (damaged("////fwE=", "tensors", "input", "histogram", "bins"), "not on the grid"),
        (damaged(None, "tensors", "input", "histogram"), "histogram of tensor 'input'"),
        (damaged(1e-3, "tensors", "input", "maximum"), "do not fit the minimum and maximum"),
        (damaged(float("nan"), "tensors", "input", "maximum"), "NaN is not a JSON number"),
    ]:
        with pytest.raises(CalibrationFileError, match=message):
            Calibration.from_bytes(content)
    with pytest.raises(CalibrationFileError, match="keeps no histograms"):
        calibrate(batches()).without_histograms().to_bytes(histograms=True)
