"""``trtbuild calibrate`` as users call it: methods, tables, early stop, plots, missing packages."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from calibrators import METHODS, Calibration, choose
from calibrators.presets import PRESETS
from tests.trtbuild.calibration.small_files import (
    ROOT,
    calibrate,
    called,
    digits,
    write_network,
)
from trtbuild.cli.main import run


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return digits(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    file = tmp_path_factory.mktemp("whole") / "ranges.json"
    assert calibrate(*given, "-q", "-o", file) == 0
    return Calibration.from_bytes(file.read_bytes())


RELU = (
    '<ir_version: 8, opset_import: ["" : 17]> s (float[N, 64] x) => (float[N, 64] y) {y = Relu (x)}'
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A ReLU on Gaussian rows: the input has both signs, half of the output is zero."""
    folder = tmp_path_factory.mktemp("tiny")
    rows = np.random.default_rng(4).standard_normal((200, 64)).astype(np.float32)
    np.savez(folder / "x.npz", x=rows)
    network = write_network(folder / "relu.onnx", RELU)
    return network, "--data", folder / "x.npz", "--all-tensors"


# These two process thousands of bins one by one.
SLOW = {"mxnet", "two-sided-4001"}
NAMES = [
    pytest.param(name, marks=pytest.mark.nightly if name in SLOW else ())
    for name in (*METHODS, *PRESETS)
]


@pytest.mark.parametrize("method", NAMES)
def test_every_method_can_be_chosen(method, tiny, tmp_path) -> None:
    file = tmp_path / "ranges.json"
    assert calibrate(*tiny, "-q", "-o", file, "--calibrator", method) == 0
    found = Calibration.from_bytes(file.read_bytes())
    assert found.method == method
    assert {*found.ranges} == {"x", "y"}
    for name, histogram in (found.histograms or {}).items():
        amax = found.ranges[name].amax
        assert amax == choose(histogram, method).amax
        # at least 128 of 2048 bins are kept; no rule exceeds its range by more than a bin, and
        # only PaddleSlim's is that from minimum to maximum
        lowest = min(0, histogram.minimum) if method == "paddleslim" else 0
        assert 1 / 16 < amax / histogram.observed_amax <= 1.01 - lowest / histogram.observed_amax


def test_a_percentile_is_passed_on(given, tmp_path) -> None:
    amaxes = []
    for percentile in (90, 99):
        file = tmp_path / "f"
        options = ("--calibrator", "percentile", "--percentile", percentile, "-q", "-o", file)
        assert calibrate(*given, *options) == 0
        found = Calibration.from_bytes(file.read_bytes())
        assert found.options == {"percentile": percentile}
        amaxes.append(found.ranges["/1/Relu_output_0"].amax)
    assert amaxes[0] < 0.9 * amaxes[1]


def test_the_table_shows_every_tensor_and_its_spread(given, whole, tmp_path, capsys) -> None:
    code, out, error = called(capsys, *given, "-o", tmp_path / "f", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["amax"] == whole.amaxes
    assert result["num_samples"] == 96
    assert result["spread"].keys() == whole.ranges.keys()
    assert any(spread > 0 for spread in result["spread"].values())
    assert "halves apart: by how much the thresholds of two halves of the data differ" in error


def test_every_method_side_by_side(given, whole, tmp_path, capsys) -> None:
    options = ("--calibrator", "ncnn", "--all-methods")
    code, out, error = called(capsys, *given, *options, "-o", tmp_path / "f", "--json")
    methods = json.loads(out)["methods"]
    assert code == 0
    assert [*methods] == ["ncnn", *METHODS], "the method in force comes first"
    for method, tensors in methods.items():
        assert method in error
        choice = whole.chosen_with(method)
        for name, figures in tensors.items():
            expected = choice.ranges[name]
            assert figures == {
                "amax": expected.amax,
                "clipped_share": expected.clipped_share,
                "sqnr_db": expected.sqnr_db,
            }
    assert "clipped, SQNR of the tensor" in error


def test_until_stable_stops_early(tmp_path, capsys) -> None:
    network = write_network(tmp_path / "s.onnx", RELU)
    rng = np.random.default_rng(5)
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    # every sample holds the same numbers, so that two halves agree at once
    np.savez(tmp_path / "x.npz", x=np.stack([rng.permutation(values) for _ in range(400)]))
    arguments = (network, "--data", tmp_path / "x.npz", "--all-tensors", "-o", tmp_path / "f")
    code, out, error = called(capsys, *arguments, "--until-stable", "1%", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["num_samples"] == 64
    assert result["until_stable"] == {
        "share": 0.01, "num_used": 64, "num_given": 400, "num_tensors": 2, "apart": {},
    }  # fmt: skip
    assert "64 of 400 samples were used" in error
    assert "up to 400 samples calibrate" in error
    kept = json.loads((tmp_path / "f").read_text())
    assert kept["provenance"]["num_samples"] == "64"


def test_until_stable_5_without_a_percent_sign_is_refused(given, tmp_path, capsys) -> None:
    code, _, error = called(capsys, *given, "--until-stable", "5", "-o", tmp_path / "f")
    assert code == 2
    assert "and not 500 %; a number without % is a fraction" in error


def test_until_stable_and_shard_exclude_each_other(given, tmp_path, capsys) -> None:
    options = ("--shard", "1/2", "--until-stable", "20%", "-o", tmp_path / "f")
    code, _, error = called(capsys, *given, *options)
    assert code == 2
    assert "--until-stable and --shard exclude each other" in error
    assert not (tmp_path / "f").exists()


def test_until_stable_names_the_tensors_that_do_not_agree(given, whole, tmp_path, capsys) -> None:
    code, out, error = called(
        capsys, *given, "--until-stable", "0.5%", "-o", tmp_path / "f", "--json"
    )
    result = json.loads(out)
    found = result["until_stable"]
    assert code == 0
    assert (found["num_used"], found["num_given"]) == (96, 96)
    assert found["apart"] == {n: s for n, s in result["spread"].items() if s > 0.005}
    assert list(found["apart"].values()) == sorted(found["apart"].values(), reverse=True)
    assert 0 < len(found["apart"]) < len(whole.ranges), "the input agrees: it is 0 to 1 everywhere"
    for name, spread in found["apart"].items():
        assert f"{name}: {spread:.2%} apart" in error
    assert result["amax"] == whole.amaxes, "all data was used, so it is the plain calibration"


def test_engine_tells_of_an_early_stop_too(given, tmp_path, capsys) -> None:
    options = ("--int8", "--backend", "onnxruntime", "--no-latency", "--until-stable", "0.5%")
    code = run(["engine", *map(str, given), *options, "-o", str(tmp_path)])
    assert code == 0
    said = capsys.readouterr().out
    assert "tensors do not agree to 0.5 %:\n" in said
    assert "data: up to " in said
    manifest = json.loads((tmp_path / "digits.manifest.json").read_text())
    (record,) = [stage for stage in manifest["stages"] if stage["stage"] == "calibrate"]
    assert record["details"]["until_stable"]["apart"]


def test_one_sample_is_never_called_stable(given, tmp_path, capsys) -> None:
    one = (*given, "--num-images", 1, "--until-stable", "50%", "-o", tmp_path / "f")
    code, out, error = called(capsys, *one, "--json")
    apart = json.loads(out)["until_stable"]["apart"]
    assert code == 0
    assert set(apart.values()) == {None}
    assert "half of the data is empty" in error


@pytest.mark.parametrize("share", ["0", "100%", "much", "-1%"])
def test_a_share_that_is_none_is_refused(share, given, tmp_path, capsys) -> None:
    code, _, error = called(capsys, *given, f"--until-stable={share}", "-o", tmp_path / "f")
    assert code == 2
    assert "--until-stable" in error


def test_plots_show_an_overview_and_every_tensor(tiny, tmp_path, capsys) -> None:
    folder = tmp_path / "new" / "plots"
    code, out, _ = called(capsys, *tiny, "-o", tmp_path / "f", "--plot", folder, "--json")
    assert code == 0
    written = sorted(file.name for file in folder.iterdir())
    assert written == ["000_x.svg", "001_y.svg", "overview.svg"]
    assert set(json.loads(out)["files"]) == {str(tmp_path / "f"), *map(str, folder.iterdir())}
    for file in folder.iterdir():
        assert ET.parse(file).getroot().tag.endswith("svg")  # noqa: S314 - our own file
    picture = (folder / "001_y.svg").read_text()
    for method in METHODS:
        assert f">{method} " in picture, method
    assert ">y</text>" in (folder / "overview.svg").read_text()


@pytest.mark.parametrize("name", ["plots.png", "plots.SVG"])
def test_a_picture_of_one_file_is_refused(tiny, tmp_path, capsys, name) -> None:
    code, out, error = called(capsys, *tiny, "-o", tmp_path / "f", "--plot", tmp_path / name)
    assert (code, out) == (2, "")
    assert "SVG files in a folder" in error
    assert not (tmp_path / name).exists()


def test_a_report_and_the_terminal_and_json_say_the_same(tiny, tmp_path, capsys) -> None:
    page = tmp_path / "page.html"
    code, out, _ = called(capsys, *tiny, "-o", tmp_path / "f", "--report", page)
    assert code == 0
    assert "method: entropy" in out
    text = page.read_text(encoding="utf-8")
    assert "<dt>method</dt><dd>entropy</dd>" in text
    assert text.count("<svg") == 3


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [("ray", ("--ray", "-q"), "ray")],
)
def test_what_is_not_installed_ends_in_3_with_the_extra_named(
    module, option, extra, tiny, tmp_path
) -> None:
    arguments = [*map(str, tiny), "-o", str(tmp_path / "f"), *option]
    code = f"import sys; sys.modules[{module!r}] = None; from trtbuild.cli.main import run; "
    code += f"sys.path.insert(0, {str(ROOT)!r}); sys.exit(run(['calibrate', *{arguments!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert f"pip install 'trtbuild[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


_IN_CIRCLES = """
import weakref
import numpy as np

class Sample:
    def __init__(self, number):
        self.itself = self
        self.parts = [[part] for part in range(200)]
        self.values = np.float32([number + 1] * 64)

alive = weakref.WeakSet()
most = 0

def samples():
    global most
    for number in range(600):
        sample = Sample(number)
        alive.add(sample)
        most = max(most, len(alive))
        yield sample.values
    with open({told!r}, "a") as file:
        print(most, file=file)
"""


def test_reference_cycles_of_a_data_function_are_collected(tmp_path) -> None:
    told, function = tmp_path / "told", tmp_path / "function.py"
    function.write_text(_IN_CIRCLES.format(told=str(told)))
    network = write_network(tmp_path / "relu.onnx", RELU)
    data = ("--data", f"{function}:samples", "--all-tensors")
    command = (sys.executable, "-m", "trtbuild", "calibrate", network, *data, "-q")
    subprocess.run([*map(str, command), "-o", tmp_path / "ranges.json"], cwd=ROOT, check=True)
    most_in_the_first_pass = int(told.read_text().split()[0])
    assert most_in_the_first_pass < 300
