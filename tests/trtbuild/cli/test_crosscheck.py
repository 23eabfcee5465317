"""``crosscheck`` on calibrations of every origin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibrators import Calibration, Collector
from trtbuild.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

CACHE = "TRT-100300-EntropyCalibration2\nnormal: 3d01020c\nonly_there: 3c010a14\n"
TABLE = "normal 2.0\nspiked 30.0\n"


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    spiked = np.concatenate([rng.normal(0, 1, 100_000), [30.0]]).astype(np.float32)
    collector = Collector(["normal", "spiked"])
    collector.observe(
        {"normal": rng.normal(0, 1, 10_000).astype(np.float32), "spiked": spiked}, batch=0
    )
    return Calibration.from_histograms(collector.histograms, "entropy")


@pytest.fixture
def folder(tmp_path: Path, calibration: Calibration) -> Path:
    (tmp_path / "ours.json").write_bytes(calibration.to_bytes(histograms=True))
    (tmp_path / "bare.json").write_bytes(calibration.to_bytes())
    (tmp_path / "trt.cache").write_text(CACHE)
    (tmp_path / "ort.cache").write_text(TABLE)
    (tmp_path / "noise").write_bytes(bytes(range(200)))
    (tmp_path / "empty").write_text("\n")
    return tmp_path


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = run(["crosscheck", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_another_method_on_the_same_statistics(capsys, folder, calibration) -> None:
    plots = folder / "plots"
    code, out, _ = call(capsys, folder / "ours.json", "minmax", "--plot", plots, "--json")
    found = json.loads(out)
    assert code == 0
    first = found["tensors"][0]
    assert first["tensor"] == "spiked"
    assert first["flagged"]
    assert first["second"] == 30.0
    assert first["ratio"] == pytest.approx(30.0 / calibration.ranges["spiked"].amax)
    # minmax clips nothing; the threshold of entropy clips at least the spike
    assert first["costs"][1]["clipped_share"] == 0.0
    assert first["costs"][0]["clipped_share"] > 0.0
    drawn = sorted(plots.iterdir())
    assert len(drawn) == sum(entry["flagged"] for entry in found["tensors"])
    text = drawn[0].read_text()
    assert text.startswith("<svg")
    assert "minmax 30" in text


def test_a_tensorrt_cache_against_a_table_of_onnxruntime(capsys, folder) -> None:
    code, out, _ = call(
        capsys, folder / "trt.cache", folder / "ort.cache",
        "--histograms", folder / "ours.json", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert found["first"]["kind"] == "TensorRT cache, TRT-100300-EntropyCalibration2"
    assert found["second"]["kind"] == "ONNX Runtime table"
    assert found["only_first"] == ["only_there"]
    # the scale word is the float32 just below 0.0315; amax is 127 times the scale
    scale = np.array([0x3D01020C], np.uint32).view(np.float32)[0]
    normal = found["tensors"][0]
    assert normal["first"] == pytest.approx(127 * float(scale), rel=1e-6)
    assert len(normal["costs"]) == 2


def test_equal_sides_flag_nothing_and_strict_passes(capsys, folder) -> None:
    code, out, _ = call(capsys, folder / "ours.json", folder / "bare.json", "--strict")
    assert code == 0
    assert "2 same" in out


def test_strict_fails_on_a_far_threshold(capsys, folder) -> None:
    code, out, _ = call(capsys, folder / "ours.json", "minmax", "--strict")
    assert code == 1
    assert "far" in out


def test_strict_fails_if_nothing_was_compared(capsys, folder) -> None:
    (folder / "other.cache").write_text("TRT-100300-EntropyCalibration2\nelsewhere: 3c010a14\n")
    sides = (folder / "ours.json", folder / "other.cache")
    assert call(capsys, *sides)[0] == 0
    code, out, _ = call(capsys, *sides, "--strict", "--junit", folder / "junit.xml")
    assert code == 1
    assert "no tensor is in both, so nothing was compared" in out
    assert 'failures="1"' in (folder / "junit.xml").read_text()


def test_names_in_a_table_of_onnxruntime_may_hold_colons(capsys, folder) -> None:
    (folder / "ort.cache").write_text("normal 2.0\nrelu:0 30.0\n")
    code, out, _ = call(capsys, folder / "ours.json", folder / "ort.cache", "--json")
    assert code == 0
    assert json.loads(out)["second"]["kind"] == "ONNX Runtime table"
    assert json.loads(out)["only_second"] == ["relu:0"]


def test_histograms_that_are_not_there_are_an_error(capsys, folder) -> None:
    sides = (folder / "trt.cache", folder / "ort.cache")
    for kept in ("bare.json", "trt.cache"):
        code, _, err = call(capsys, *sides, "--histograms", folder / kept)
        assert code == 2
        assert f"{kept}' keeps no histograms" in err


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("absent.json", "minmax", "cannot read"),
        ("bare.json", "minmax", "keeps no histograms"),
        ("noise", "trt.cache", "not a calibration file"),
        ("empty", "trt.cache", "ONNX Runtime table: it is empty."),
        ("ours.json", "nothing", "cannot read 'nothing'"),
    ],
)
def test_bad_input(capsys, folder, first, second, message) -> None:
    second = folder / second if (folder / second).exists() else second
    code, out, err = call(capsys, folder / first, second)
    assert code == 2
    assert out == ""
    assert message in err
