"""Paths are checked before any work: no input is overwritten, and no bad output path costs work."""

from __future__ import annotations

import json
import shutil
from typing import ClassVar

import numpy as np
import onnx
import pytest

from tests.command import FAST, trtbuild
from tests.models import NETWORKS

CNN = NETWORKS["opset_13"]


FLEET = """
build = { model = "m.onnx", data = { data = "d.npz", verify_data = "d.npz" } }
[target.cpu]
backend = "onnxruntime"
"""


class Bench:
    """A network, data with labels, a calibration, and a source that counts its reads."""

    kept: ClassVar[dict[str, bytes]] = {}

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.capsys = folder, capsys
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        model, data = CNN.save(folder, count=24)
        model.rename("m.onnx")
        data.rename("d.npz")
        (folder / "labels.csv").write_text("label\n" + "1\n" * 24)
        shutil.copy("m.onnx", "n.onnx")
        (folder / "link.onnx").symlink_to("m.onnx")
        (folder / "fleet.toml").write_text(FLEET)
        (folder / "counted.toml").write_text(FLEET.replace("d.npz", "counted:samples", 1))
        for name, content in self.calibrated().items():
            (folder / name).write_bytes(content)

    def calibrated(self):
        """The files of one calibration, shared by all tests."""
        if not self.kept:
            self.run("calibrate", "m.onnx", "--data", "d.npz", "-o", "c.json", "--cache", "c.cache")
            self.kept |= {name: (self.folder / name).read_bytes() for name in ("c.json", "c.cache")}
        return self.kept

    def run(self, *arguments):
        quiet = () if arguments[0] in ("init",) else ("--quiet",)
        return trtbuild(self.capsys, *arguments, *quiet)


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    return Bench(tmp_path, monkeypatch, capsys)


ENGINE = ("engine", "m.onnx", "--int8", "--data", "d.npz", "-o", "o", "--no-latency", *FAST)
VERIFY = ("verify", "m.onnx", "n.onnx", "--data", "d.npz")
OVER = [
    ("calibrate", "m.onnx", "--data", "d.npz", "-o", "m.onnx"),
    ("calibrate", "m.onnx", "--data", "d.npz", "-o", "link.onnx"),
    ("calibrate", "link.onnx", "--data", "d.npz", "-o", "m.onnx"),
    ("calibrate", "m.onnx", "--data", "d.npz", "-o", "x.json", "--cache", "./d.npz"),
    ("calibrate", "m.onnx", "--data", "d.npz", "-o", "x.json", "--report", "m.onnx"),
    ("calibrate", "merge", "c.json", "-o", "c.json"),
    (*ENGINE, "--report", "m.onnx"),
    (*ENGINE, "--junit", "d.npz"),
    (*ENGINE, "--calibration", "c.json", "--report", "c.json"),
    (*VERIFY, "-o", "m.onnx"),
    (*VERIFY, "-o", "n.onnx"),
    (*VERIFY, "--labels", "labels.csv", "--junit", "labels.csv"),
    ("optimize", "m.onnx", "m.onnx"),
    ("optimize", "m.onnx", "link.onnx"),
    ("quantize", "m.onnx", "--calibration", "c.json", "-o", "m.onnx"),
    ("quantize", "m.onnx", "--calibration", "c.json", "-o", "c.json"),
    ("cache", "convert", "c.cache", "m.onnx", "-o", "m.onnx"),
    ("cache", "convert", "c.cache", "m.onnx", "-o", "c.cache"),
    ("bench", "m.onnx", "--save-baseline", "m.onnx"),
    ("bench", "m.onnx", "--against", "n.onnx", "--save-baseline", "n.onnx"),
    ("crosscheck", "c.json", "c.cache", "--report", "c.json"),
    ("init", "m.onnx", "-o", "m.onnx", "--force"),
    ("check", "m.onnx", "--report", "m.onnx"),
    ("check", "m.onnx", "--junit", "link.onnx"),
    ("diff", "m.onnx", "n.onnx", "--report", "n.onnx"),
    ("fleet", "fleet.toml", "--report", "fleet.toml"),
    ("fleet", "fleet.toml", "--report", "m.onnx"),
    ("fleet", "fleet.toml", "--report", "d.npz"),
]


def test_ranges_of_the_same_folder_are_used_again(bench):
    assert bench.run(*ENGINE, "--calibrator", "entropy").code == 0
    network = (bench.folder / "o" / "m.int8.onnx").read_bytes()
    again = (*ENGINE, "--calibration", "o/m.calibration.json")
    assert bench.run(*again, "--dry-run").code == 0
    assert bench.run(*again).code == 0
    assert (bench.folder / "o" / "m.int8.onnx").read_bytes() == network
    for twice in ((*again, "--dry-run"), again):
        assert "two files" in bench.run(*twice, "--report", "o/m.calibration.json").sentence


def test_a_file_in_the_place_of_the_results_of_a_search_costs_no_work(bench):
    counted = [word.replace("d.npz", "counted:samples") for word in ENGINE]
    sentence = bench.run(*counted, "--min-sqnr", 60, "--search-cache", "m.onnx").sentence
    assert sentence == "--search-cache 'm.onnx' is a file; name a folder."
    assert not (bench.folder / "o").exists()


def test_a_baseline_follows_itself(bench):
    quick = ("bench", "m.onnx", "--seconds", "0.01", "--warmup-ms", "0")
    assert bench.run(*quick, "--save-baseline", "b.json").code == 0
    first = (bench.folder / "b.json").read_text()
    again = bench.run(*quick, "--against", "b.json", "--save-baseline", "./b.json")
    assert again.code in (0, 1), again.err
    assert (bench.folder / "b.json").read_text() != first


@pytest.mark.parametrize("arguments", OVER, ids=" ".join)
def test_no_input_is_written_over(bench, arguments):
    before = {path.name: path.read_bytes() for path in bench.folder.iterdir() if path.is_file()}
    assert "would be overwritten; name another file" in bench.run(*arguments).sentence
    now = {path.name: path.read_bytes() for path in bench.folder.iterdir() if path.is_file()}
    assert now == before
    assert (bench.folder / "link.onnx").is_symlink()


def test_the_files_of_a_build_that_is_compared_are_not_written_over(bench):
    assert bench.run(*ENGINE, "--calibrator", "entropy").code == 0
    before = {path.name: path.read_bytes() for path in (bench.folder / "o").iterdir()}
    for compared in ("o", "o/m.manifest.json", "o/m.int8.onnx"):
        for name in before:
            sentence = bench.run("diff", "m.onnx", compared, "--report", f"o/{name}").sentence
            assert "would be overwritten" in sentence
    assert {path.name: path.read_bytes() for path in (bench.folder / "o").iterdir()} == before


def test_settings_are_not_written_over(bench):
    (bench.folder / "p.toml").write_text("scale = 1.0")
    (bench.folder / "r.toml").write_text("int8 = true")
    for name, option in (("p.toml", "--preprocess"), ("r.toml", "--recipe")):
        sentence = bench.run(*ENGINE, option, name, "--report", name).sentence
        assert "would be overwritten" in sentence


def test_weights_beside_a_network_are_not_written_over(bench):
    model = onnx.load("m.onnx")
    onnx.save(model, "apart.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    whole = (bench.folder / "w.bin").read_bytes()
    for arguments in (
        ("calibrate", "apart.onnx", "--data", "d.npz", "-o", "w.bin"),
        ("optimize", "apart.onnx", "w.bin"),
    ):
        assert "would be overwritten" in bench.run(*arguments).sentence
    assert (bench.folder / "w.bin").read_bytes() == whole
    # the file that a large network's weights would take
    model = onnx.load("m.onnx")
    onnx.save(model, "apart.onnx", save_as_external_data=True, location="v.data", size_threshold=0)
    sentence = bench.run("optimize", "apart.onnx", "v").sentence
    assert "'v.data' belongs to the network, which is read, and would be overwritten" in sentence


def test_a_file_of_a_folder_of_data_is_not_written_over(bench):
    (bench.folder / "arrays").mkdir()
    np.save("arrays/x.npy", np.load("d.npz")["x"])
    sentence = bench.run("calibrate", "m.onnx", "--data", "arrays", "-o", "arrays/x.npy").sentence
    assert "would be overwritten" in sentence


def test_networks_get_names_that_are_text(bench):
    sentence = bench.run(*ENGINE[:4], "absent.npz", "-o", "o\udcff").sentence
    assert (
        sentence
        == "'o\\udcff/m.int8.onnx' is not UTF-8, as the name of a network's file must be; choose another."
    )


def test_two_outputs_are_two_files(bench):
    sentence = bench.run(*ENGINE, "--report", "r", "--junit", "./r").sentence
    assert "two files" in sentence


COUNTED = "counted:samples"
LATE = [
    ("calibrate", "m.onnx", "--data", COUNTED, "-o", "missing/c.json"),
    ("calibrate", "m.onnx", "--data", COUNTED, "-o", "c.json/c.json"),
    ("calibrate", "m.onnx", "--data", COUNTED, "-o", "x.json", "--cache", "missing/c.cache"),
    ("calibrate", "m.onnx", "--data", COUNTED, "-o", "x.json", "--report", "missing/r.html"),
    ("fleet", "counted.toml", "--report", "missing/r.html"),
    ("calibrate", "m.onnx", "--data", COUNTED, "-o", "x.json", "--plot", "c.json/plots"),
    *(
        ("calibrate", "m.onnx", "--data", COUNTED, "-o", "x.json", "--cache", "x.cache",
         "--tensorrt-version", version)
        for version in ("ten", "10")
    ),
    (*ENGINE[:4], COUNTED, *ENGINE[5:], "--report", "missing/r.html"),
    (*ENGINE[:4], COUNTED, *ENGINE[5:], "--junit", "missing/r.xml"),
    (*ENGINE[:4], COUNTED, "-o", "c.json/o"),
    (*VERIFY[:4], COUNTED, "-o", "missing/v.json"),
    ("bench", "m.onnx", "--data", COUNTED, "--save-baseline", "missing/b.json"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", LATE, ids=" ".join)
def test_an_output_that_cannot_be_written_is_said_before_a_sample_is_read(bench, arguments):
    (bench.folder / "counted.py").write_text(
        "import pathlib\n"
        "def samples():\n"
        "    pathlib.Path('read').touch()\n"
        "    raise RuntimeError('read')\n"
    )
    assert "read" not in {path.name for path in bench.folder.iterdir()}
    assert bench.run(*arguments).sentence
    assert not (bench.folder / "read").exists()
    assert not (bench.folder / "o").exists()


def test_a_report_that_cannot_be_written_does_not_hide_a_finished_engine(bench, monkeypatch):
    monkeypatch.setattr(
        "trtbuild.jobs.paths._check_writable", lambda *_: None
    )  # it vanishes after the check
    done = trtbuild(bench.capsys, *ENGINE, "--report", "missing/r.html", "--json")
    assert done.code == 2
    assert "missing/r.html" in done.err
    assert done.json["name"] == "m"
    assert json.loads((bench.folder / "o" / "m.manifest.json").read_text())["name"] == "m"


def test_plots_appear_all_or_none(bench, monkeypatch):
    plots = bench.folder / "plots"
    drawing = ("calibrate", "m.onnx", "--data", "d.npz", "-o", "x.json", "--plot", "plots")
    assert bench.run(*drawing).code == 0
    before = {path.name: path.read_bytes() for path in plots.iterdir()}
    assert len(before) > 2
    drawn = []

    def full(plot):
        drawn.append(plot)
        if len(drawn) == 3:
            raise OSError(28, "No space left on device")
        return "<svg/>"

    monkeypatch.setattr("trtbuild.plots.calibration.picture", full)
    done = bench.run(*drawing)
    assert "No space left" in done.sentence
    assert {path.name: path.read_bytes() for path in plots.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("m.onnx", ENGINE),
        ("d.npz", ENGINE),
        ("labels.csv", (*ENGINE, "--labels", "labels.csv")),
        ("c.json", ("quantize", "m.onnx", "--calibration", "c.json", "-o", "q.onnx")),
        ("a.plan", ("diff", "a.plan", "m.onnx")),
    ],
)
def test_a_file_that_git_did_not_fetch_is_named_so(name, arguments, bench):
    (bench.folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    assert f"'{name}' is not the " in (said := bench.run(*arguments).sentence)
    assert "a Git LFS pointer" in said
