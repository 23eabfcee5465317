"""``trtbuild cache``: output, files and exit codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrators.cache import CalibrationCache
from tests.command import trtbuild
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.cli.main import run
from trtbuild.model import read_model, write_model
from trtbuild.runtime.onnxruntime import open_session

CACHE = """TRT-100300-EntropyCalibration2
images: 3c010a14
(Unnamed Layer* 3) [Shuffle]_output: 0
a: b: 7f800000
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.cache").write_text(CACHE)
    shown = trtbuild(capsys, "cache", "show", "c.cache", "--json").json
    scale = float(np.uint32(0x3C010A14).view(np.float32))
    assert shown == {
        "schema": "trtbuild.cache",
        "version": 1,
        "file": "c.cache",
        "header": "TRT-100300-EntropyCalibration2",
        "tensorrt_version": "100300",
        "algorithm": "EntropyCalibration2",
        "tensors": {
            "images": {"scale": scale, "amax": 127 * scale},
            "(Unnamed Layer* 3) [Shuffle]_output": {"scale": 0.0, "amax": 0.0},
            "a: b": {"scale": "inf", "amax": "inf"},
        },
    }


def test_show_keeps_brackets_in_names(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.cache").write_text(CACHE)
    assert run(["cache", "show", "c.cache"]) == 0
    assert "[Shuffle]" in capsys.readouterr().out


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.cache").write_text(
        "TRT-100300-EntropyCalibration2\nx: 3f800000\ny: 3f800000\nz: 3f800000\n"
    )
    Path("b.cache").write_text(
        "TRT-100300-EntropyCalibration2\nx: 3f800000\ny: 3f800347\nw: 3f800000\n"
    )
    assert run(["cache", "diff", "a.cache", "a.cache"]) == 0
    done = trtbuild(capsys, "cache", "diff", "a.cache", "b.cache", "--json")
    assert (done.code, done.json["equal"], done.json["num_shared"]) == (1, False, 2)
    (changed,) = done.json["changed"]
    assert changed["tensor"] == "y"
    assert changed["ratio"] == changed["second_scale"] == pytest.approx(1.0001, rel=1e-6)
    assert [done.json[side]["file"] for side in ("first", "second")] == ["a.cache", "b.cache"]
    assert (done.json["only_first"], done.json["only_second"]) == (["z"], ["w"])
    Path("b.cache").write_text(
        "TRT-100300-EntropyCalibration2\nx: 3f800000\ny: 3f800347\nz: 3f800000\n"
    )
    assert run(["cache", "diff", "a.cache", "b.cache", "--tolerance", "1e-3"]) == 0


def _given() -> tuple[networks.Artifact, CalibrationCache]:
    artifact = networks.calibrated("N")
    assert artifact.calibration is not None
    calibration = artifact.calibration
    scales = {name: calibration.scale(name) for name in calibration.ranges}
    cache = CalibrationCache("TRT-101601-EntropyCalibration2", scales)
    write_model(artifact.model, Path("net.onnx"))
    Path("net.cache").write_bytes(cache.to_bytes())
    return artifact, cache


def test_one_tensor_is_not_called_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.cache").write_text("TRT-100300-EntropyCalibration2\nx: 3f800000\ny: 3f800000\n")
    Path("b.cache").write_text("TRT-100300-EntropyCalibration2\nx: 3f800347\n")
    assert run(["cache", "diff", "a.cache", "b.cache"]) == 1
    assert "1 tensor in both, 1 with another scale" in capsys.readouterr().out


def test_convert_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    artifact, cache = _given()
    there = ("cache", "convert", "net.cache", "net.onnx", "-o", "qdq.onnx")
    report = trtbuild(capsys, *there, "--json").json
    assert report["files"] == ["qdq.onnx"]
    assert report["counts"] == {"matched": len(cache.scales)}
    feeds = networks.batches(1, 2)[0]
    assert artifact.quantized is not None
    ours = open_session(Path("qdq.onnx")).run(feeds)["scores"]
    np.testing.assert_array_equal(ours, open_session(artifact.quantized).run(feeds)["scores"])

    report = trtbuild(capsys, "cache", "convert", "qdq.onnx", "-o", "plain.onnx", "--json").json
    assert report["kept_fp32"] is None
    assert report["files"] == ["plain.onnx", "plain.cache"]
    back = CalibrationCache.from_bytes(Path("plain.cache").read_bytes())
    assert {name: back.scales[name] for name in cache.scales} == dict(cache.scales)
    assert not {n.op_type for n in read_model(Path("plain.onnx")).graph} & {"QuantizeLinear"}


def test_convert_with_fp16_and_a_layer_in_float(capsys: pytest.CaptureFixture[str]) -> None:
    _given()
    command = [
        "cache",
        "convert",
        "net.cache",
        "net.onnx",
        "-o",
        "q.onnx",
        "--fp16",
        "--float",
        "Gemm",
    ]
    report = trtbuild(capsys, *command, "--json").json
    assert report["kept_fp32"] == []
    (gemm,) = (layer for layer in report["layers"] if layer["op_type"] == "Gemm")
    assert not gemm["int8"]
    kinds = {str(v.dtype) for v in read_model(Path("q.onnx")).graph.initializers.values()}
    assert "FLOAT16" in kinds
    assert "FLOAT" not in kinds


def test_what_is_lost_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _given()
    Path("other.cache").write_text(CACHE)
    done = trtbuild(capsys, "cache", "convert", "other.cache", "net.onnx", "-o", "q.onnx", "--json")
    assert [one["scale"] for one in done.json["scales"]][2] == "inf"
    printed = done.err
    assert "(Unnamed Layer* 3) [Shuffle]_output" in printed
    assert "the scale is zero" in printed
    assert "the cache has no scale for tensor 'r1'" in printed


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "absent.cache"], "the cache 'absent.cache' cannot be read: No such file"),
        (["show", "net.onnx"], "is a network, but a calibration cache is expected"),
        (
            ["convert", "net.onnx", "net.cache", "-o", "q.onnx"],
            "is a network, but a calibration cache is expected",
        ),
        (
            ["convert", "net.cache", "-o", "q.onnx"],
            "is a calibration cache: name the float network",
        ),
        (["convert", "absent.onnx", "-o", "q.onnx"], "absent.onnx"),
        (["convert", "net.onnx", "-o", "q.onnx"], "the network has no Q/DQ on activations"),
        (["convert", "net.cache", "net.onnx", "-o", "no/q.onnx"], "cannot write"),
        (["convert", "net.cache", "net.onnx", "-o", "q.onnx", "--float", "zz*"], "matches no node"),
    ],
)
def test_bad_input(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    _given()
    assert run(["cache", *arguments]) == 2
    assert text in capsys.readouterr().err
    assert not Path("q.onnx").exists()
