"""TensorRT's own scales from the command line: public calibrations replayed, special values, pooling."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibrators.cache import CalibrationCache
from tests.calibrators.test_tensorrt_rule import weight_free_values
from tests.trtbuild.calibration.small_files import calibrate, called, write_network

if TYPE_CHECKING:
    from pathlib import Path

AS_TENSORRT = ("--calibrator", "entropy-tensorrt", "--all-tensors")


def scales(cache: Path) -> dict[str, str]:
    _, *lines = cache.read_text().splitlines()
    return dict(line.rsplit(": ", 1) for line in lines)


def from_hex(word: str) -> float:
    return float(np.uint32(int(word, 16)).view(np.float32))


def test_a_public_calibration_of_tensorrt_is_replayed(shared, tmp_path) -> None:
    golden = shared / "data" / "golden-entropy"
    cache = tmp_path / "lenet.cache"
    code = calibrate(
        *(golden / "lenet.onnx", "--data", golden / "digits.npz", "--array", "images"),
        *("--color", "GRAY", "--scale", repr(1 / 255), *AS_TENSORRT, "--batch-size", 50, "-q"),
        *("-o", tmp_path / "ranges.json", "--cache", cache, "--tensorrt-version", "7.2.2"),
    )
    assert code == 0
    found = scales(cache)
    expected = json.loads((golden / "expected.json").read_text())["lenet"]
    assert cache.read_text().splitlines()[0] == "TRT-7202-EntropyCalibration2"
    # the input depends on no weights; sums of products may differ in their last bits between CPUs
    assert found["data"] == expected["data"]["scale_hex"]
    for name, entry in expected.items():
        assert from_hex(found[name]) == pytest.approx(from_hex(entry["scale_hex"]), rel=4e-7)
        # a neighbouring index would be at least 1/2048.5 away
        amax = float(np.float32(from_hex(found[name])) * np.float32(127))
        assert round(amax * 2048 / entry["range"] - 0.5) == entry["index"]
    assert found["pool1"] == found["conv1"]
    assert found["pool2"] == found["conv2"]
    assert list(found)[:3] == ["data", "conv1", "pool1"], "the order of the graph"


def test_tensors_that_need_no_weights_to_the_bit(shared, tmp_path) -> None:
    """Each is a constant in one network, as in the networks of the published caches."""
    golden = json.loads((shared / "data" / "golden-entropy" / "expected.json").read_text())
    cases = [(case["name"], case["scale_hex"]) for case in golden["weight_free"]]
    known, arrays, lines = weight_free_values(), {}, []
    for number, (name, _) in enumerate(cases):
        values = known.get(name)
        if values is None:
            values = np.full(7, float(name.removeprefix("constant ")))
        arrays[f"c{number}"] = values.astype(np.float32)
        lines.append(f"t{number} = Identity (c{number})")
    text = '<ir_version: 8, opset_import: ["" : 17]> all (float[N, 2] x) => (float[N, 2] y) {'
    network = write_network(
        tmp_path / "all.onnx", text + "\n".join([*lines, "y = Relu (x)"]) + "}", **arrays
    )
    np.savez(tmp_path / "x.npz", x=np.ones((3, 2), np.float32))
    cache = tmp_path / "all.cache"
    data = (network, "--data", tmp_path / "x.npz", "-q", "-o", tmp_path / "r.json")
    assert calibrate(*data, *AS_TENSORRT, "--cache", cache) == 0
    found = scales(cache)
    assert {n: found[f"t{i}"] for i, (n, _) in enumerate(cases)} == dict(cases)


SPECIAL = """<ir_version: 8, opset_import: ["" : 17]>
special (float[N, 1, 4, 4] x) => (float[N, 1, 2, 2] y, float[N, 1, 4, 4] zero, float[N, 1, 4, 4] mask) {
  double = Add (x, x)
  first = MaxPool <kernel_shape = [2, 2], strides = [1, 1], pads = [0, 0, 1, 1]> (double)
  y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (first)
  zero = Mul (x, nothing)
  positive = Greater (x, half)
  mask = Where (positive, minus_infinity, nothing)
}"""


@pytest.fixture
def special(tmp_path: Path) -> tuple[object, ...]:
    network = write_network(
        tmp_path / "special.onnx",
        SPECIAL,
        nothing=np.float32(0).reshape(1),
        half=np.float32(0.5).reshape(1),
        minus_infinity=np.float32(-np.inf).reshape(1),
    )
    images = np.random.default_rng(2).random((10, 1, 4, 4), np.float32)
    images[0, 0, 0, 0] = 1
    np.savez(tmp_path / "x.npz", x=images)
    return network, "--data", tmp_path / "x.npz", "-o", tmp_path / "ranges.json"


def test_zeros_infinity_and_a_chain_of_pools(special, tmp_path, capsys) -> None:
    cache = tmp_path / "special.cache"
    code, out, _ = called(capsys, *special, *AS_TENSORRT, "--cache", cache, "--json")
    found = scales(cache)
    assert code == 0
    assert (found["zero"], found["mask"]) == ("0", "7f800000")
    # a pool has its input's scale, also in a chain of pools
    assert found["y"] == found["first"] == found["double"]
    ranges = json.loads((tmp_path / "ranges.json").read_text())["tensors"]
    assert ranges["y"]["note"] == "takes the range of 'double'"
    assert ranges["zero"]["note"].startswith("zero in all 160 values")
    assert "infinite" in ranges["mask"]["note"]
    assert (ranges["zero"]["amax"], ranges["mask"]["amax"]) == (0, None)
    # the output is JSON, which has no infinite numbers
    assert json.loads(out, parse_constant=pytest.fail)["amax"]["mask"] == "inf"
    again = CalibrationCache.from_bytes(cache.read_bytes())
    assert again.to_bytes() == cache.read_bytes()


def test_our_entropy_refuses_an_infinity_and_names_it(special, capsys) -> None:
    code, _, error = called(capsys, *special, "--all-tensors")
    assert code == 2
    assert "the tensor 'mask' holds infinity for the sample 'x.npz[" in error


def test_a_constant_tensor_is_kept_whole_by_every_method(tmp_path, capsys) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> c (float[N, 4] x) => (float[N, 4] y) {y = Relu (x)}'
    network = write_network(tmp_path / "c.onnx", text)
    np.savez(tmp_path / "x.npz", x=np.full((5, 4), 2, np.float32))
    arguments = (network, "--data", tmp_path / "x.npz", "-o", tmp_path / "r", "--all-tensors")
    code, out, _ = called(capsys, *arguments, "--all-methods", "--json")
    assert code == 0
    for method, tensors in json.loads(out)["methods"].items():
        # a bin is 1/1024 of a power of two wide; no method may round a constant away
        assert tensors["y"]["amax"] == pytest.approx(2, rel=1e-3), method


@pytest.mark.parametrize("option", [("--workers", 2), ("--until-stable", "1%"), ("--shard", "1/2")])
def test_the_order_of_batches_cannot_be_spread(special, option, capsys) -> None:
    code, _, error = called(capsys, *special, *AS_TENSORRT, *option)
    assert code == 2
    assert "depends on the order of all batches" in error
