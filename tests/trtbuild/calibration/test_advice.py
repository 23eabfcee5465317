"""Advice on calibration data: planted faults are found and named, and the subset gives the same ranges."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from calibrators import Calibration, Collector
from tests.command import trtbuild
from tests.trtbuild.verification.small_network import float_network, images
from trtbuild.calibration.advice import SampleStatistics, all_as_good, near_duplicates
from trtbuild.calibration.instability import instability_costs
from trtbuild.model import write_model
from trtbuild.visible import visible


@pytest.fixture
def network(tmp_path):
    write_model(float_network(), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def advise(capsys, network, data: np.ndarray, *options: object) -> dict:
    np.save(network.parent / "images.npy", data)
    outcome = trtbuild(
        capsys, "advise", network, "--data", network.parent / "images.npy", "--json", *options
    )
    assert outcome.code == 0, outcome.err
    return outcome.json


def test_what_was_planted_is_named(network, capsys) -> None:
    data = images(0, 24).copy()
    data[7] = data[3] * np.float32(1.001)
    data[20] = data[3] * np.float32(0.999)
    data[15] = data[5] * np.float32(1.02)  # farther than 1 %, at the input at least
    data[11] *= 4
    found = advise(capsys, network, data)
    (group,) = found["duplicates"]
    assert sorted(group) == ["images.npy[20]", "images.npy[3]", "images.npy[7]"]
    (outlier,) = found["outliers"]
    assert outlier["name"] == "images.npy[11]"
    assert outlier["num_tensors"] == found["num_tensors"]
    assert outlier["ratio"] > 1.5


def test_the_first_of_near_duplicates_stands_for_the_others() -> None:
    # the second agrees with both others to 1 %, and they differ by 1.7 % in their root mean squares
    amax = np.array([[1.001], [1.0], [1.002], [5.0]])
    rms = np.array([[1.009], [1.0], [0.992], [1.0]])
    samples = SampleStatistics(tuple("abcd"), (b"a", b"b", b"c", b"d"), ("t",), amax, rms, ())
    assert near_duplicates(samples) == ((1, 0, 2),)


def test_samples_of_one_content_count_once(network, capsys) -> None:
    data = images(0, 12)
    few = network.parent / "few.npz"
    # nothing but all samples gives each threshold exactly
    options = ("--calibrator", "mse", "--within", 0, "--subset", few)
    found = advise(capsys, network, np.concatenate([data, data[:5]]), *options)
    assert (found["num_samples"], found["repeated"]) == (12, 5)
    assert found["copies"] == [[f"images.npy[{k}]", f"images.npy[{k + 12}]"] for k in range(5)]
    assert found["duplicates"] == found["outliers"] == []
    assert set(found["subset"]) <= {f"images.npy[{k}]" for k in range(12)}
    assert {group[0] for group in found["copies"]} & set(found["subset"])
    assert len(np.load(few)["image"]) == len(found["subset"])
    table = trtbuild(capsys, "advise", network, "--data", network.parent / "images.npy").out
    assert "images.npy[16]" in table


def test_the_subset_gives_the_same_ranges(network, capsys) -> None:
    folder = network.parent
    many = np.concatenate([images(0, 40) * np.float32(0.5), images(1, 2) * np.float32(3)])
    few = folder / "few.npz"
    found = advise(capsys, network, many, "--calibrator", "minmax", "--subset", few)
    assert len(found["subset"]) < 8
    ranges = []
    for data in (folder / "images.npy", few):
        out = folder / f"{data.stem}.json"
        options = ("--data", data, "--calibrator", "minmax", "-o", out, "--json")
        ranges.append(trtbuild(capsys, "calibrate", network, *options).json["amax"])
    assert np.load(few)["image"].shape == (len(found["subset"]), 3, 12, 12)
    for name, amax in ranges[0].items():
        # as good to 0.5 dB: 20 log10(1.06)
        assert ranges[1][name] == pytest.approx(amax, rel=0.06)


def test_names_are_written_as_text_and_other_files_refused(network, capsys) -> None:
    names = network.parent / "few.txt"
    found = advise(capsys, network, images(0, 8), "--calibrator", "minmax", "--subset", names)
    assert sorted(names.read_text().split()) == sorted(found["subset"])
    wrong = ("--data", network.parent / "images.npy", "--subset", network.parent / "few.jpg")
    assert "few.jpg" in trtbuild(capsys, "advise", network, *wrong).sentence
    order = (*wrong[:2], "--calibrator", "entropy-tensorrt")
    assert "depends on the order" in trtbuild(capsys, "advise", network, *order).sentence
    percent = (*wrong[:2], "--within", 1)
    assert "--within is 0 to 0.5, not 1" in trtbuild(capsys, "advise", network, *percent).sentence
    same = advise(capsys, network, images(0, 8), "--calibrator", "minmax", "--within", "1%")
    assert same["subset"] == found["subset"]


def test_a_network_without_layers_for_int8_is_refused(tmp_path, capsys) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "relu.onnx")
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    refused = trtbuild(capsys, "advise", tmp_path / "relu.onnx", "--data", tmp_path / "x.npy")
    assert "no layer of" in refused.sentence
    assert "would run in INT8" in refused.sentence


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", ["#{}.png", " {}\n\u2028\x85.png"])
def test_a_list_of_images_is_data_again(tmp_path, capsys, monkeypatch, listed, name) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(float_network(), tmp_path / "small.onnx")
    folder = tmp_path / "images" / "sub"
    folder.mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name.format(number))
    data = "images"
    if listed:
        data = "all.lst"
        lines = (f"images/sub/{visible(name.format(k))}\n" for k in range(6))
        (tmp_path / data).write_text("".join(lines))
    (tmp_path / "elsewhere").mkdir()
    few = Path("elsewhere", "few.txt")
    command = ("advise", "small.onnx", "--calibrator", "minmax", "--scale", 1 / 255, "--json")
    first = trtbuild(capsys, *command, "--data", data, "--subset", few)
    assert first.code == 0, first.err
    found = trtbuild(capsys, *command, "--data", few)
    assert found.json["num_samples"] == len(first.json["subset"])
    # the images beside the list, with names that begin like a comment, or with a space
    assert trtbuild(capsys, *command, "--data", folder, "--subset", folder / "few.txt").code == 0
    again = trtbuild(capsys, *command, "--data", folder / "few.txt")
    assert again.json["num_samples"] == len(first.json["subset"])


def calibration(values: np.ndarray, amax: float) -> Calibration:
    collector = Collector(["t"])
    collector.observe({"t": values}, batch=0)
    made = Calibration.from_histograms(collector.histograms, "minmax")
    given = dataclasses.replace(made.ranges["t"], amax=amax)
    return dataclasses.replace(made, ranges={"t": given})


def rounded_sqnr_db(values: np.ndarray, amax: float) -> float:
    """Computed without the histogram: the values themselves, rounded in float64."""
    scale = amax / 127
    error = np.clip(np.rint(values / scale), -128, 127) * scale - values
    return float(10 * np.log10(np.sum(values**2) / np.sum(error**2)))


@pytest.mark.parametrize("apart", [0.05, 0.5, 2.0])
def test_what_instability_costs_is_what_rounding_with_the_other_threshold_costs(apart) -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    (cost,) = instability_costs(calibration(values.astype(np.float32), 4.0), {"t": apart})
    own = rounded_sqnr_db(values, 4.0)
    others = (
        rounded_sqnr_db(values, 4.0 / (1 + apart)),
        rounded_sqnr_db(values, 4.0 * (1 + apart)),
    )
    # the histogram has 2048 bins, and the estimate assumes rounding errors independent of the values
    assert cost.lost_db == pytest.approx(max(own - min(others), 0.0), abs=0.15)
    clipped = np.mean(np.abs(values) > 4.0 / (1 + apart))
    assert cost.clipped_share == pytest.approx(clipped, abs=2e-3)


def test_until_stable_says_what_it_means(network, capsys) -> None:
    rng = np.random.default_rng(5)
    wild = images(0, 100) * np.exp(rng.normal(0, 1.5, (100, 1, 1, 1))).astype(np.float32)
    np.save(network.parent / "images.npy", wild)
    options = (
        "--data",
        network.parent / "images.npy",
        "--until-stable",
        "1%",
        "--calibrator",
        "minmax",
    )
    out = network.parent / "c.json"
    told = trtbuild(capsys, "calibrate", network, *options, "-o", out)
    assert told.code == 0, told.err
    assert "what that means:" in told.out
    assert "dB" in told.out
    assert json.loads(out.read_text())["method"] == "minmax"


@pytest.mark.parametrize(("lost_db", "as_good"), [(0.4, True), (0.6, False)])
def test_a_threshold_that_costs_half_a_decibel_is_another(lost_db: float, as_good: bool) -> None:
    """Beyond all values, the noise grows with the square of the threshold."""
    values = np.random.default_rng(0).normal(size=200_000)
    other = 5.0 * 10 ** (lost_db / 20)
    assert rounded_sqnr_db(values, 5.0) - rounded_sqnr_db(values, other) == pytest.approx(
        lost_db, abs=0.05
    )
    whole = calibration(values.astype(np.float32), 5.0)
    assert all_as_good(whole, {"t": other}, 0.01) is as_good
    assert all_as_good(whole, {"t": other}, 0.1), "within the share, whatever it costs"
