"""A fleet is built with one calibration; each target has its own result, and a failure stops no other."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.command import trtbuild
from tests.ray_here import ray_of_two
from tests.trtbuild.verification.small_network import float_network, images
from trtbuild.diff.compare import FigureValue
from trtbuild.errors import MissingError
from trtbuild.jobs.fleet import Fleet, FleetOutcome, FleetTarget, read_fleet
from trtbuild.model import write_model
from trtbuild.report.fleet import fleet_report
from trtbuild.report.model import Table
from trtbuild.runtime.onnxruntime import open_session

PROJECT = Path(__file__).resolve().parents[3]

BUILD = """
[build]
model = "small.onnx"
latency = { enabled = false }
[build.data]
data = "images.npy"
verify_data = "others.npy"
"""
TARGETS = """
[target.loose]
backend = "onnxruntime"
gate = { min_sqnr = 1.0 }
[target.strict]
backend = "onnxruntime"
gate = { min_sqnr = 99.0 }
[target.no-such]
backend = "onnxruntime"
float_patterns = ["Nothing*"]
[target.server]
backend = "tensorrt"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(float_network(), tmp_path / "small.onnx")
    np.save(tmp_path / "images.npy", images(3, 16))
    np.save(tmp_path / "others.npy", images(4, 12))
    return tmp_path


def fleet(capsys, folder: Path, text: str, *options: object):
    (folder / "targets.toml").write_text(text)
    return trtbuild(capsys, "fleet", folder / "targets.toml", "-o", folder / "out", *options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[target.one]\n", "[target.one]': 'model' is missing"),
        (
            BUILD + '[target.a]\n[target.b]\ntask = { kind = "ctc", box_layout = "ssd" }',
            "[target.b]': ",
        ),
    ],
)
def test_what_is_wrong_in_a_target_names_it(folder, capsys, text, said) -> None:
    assert said in fleet(capsys, folder, text).sentence
    assert not (folder / "out").exists()


def test_every_target_is_built_with_the_one_calibration(folder, capsys) -> None:
    done = fleet(capsys, folder, BUILD + TARGETS, "--json", "--report", folder / "fleet.html")
    found = done.json
    outcomes = {target["name"]: target["outcome"] for target in found["targets"]}
    assert outcomes["loose"] in ("SHIP", "CANNOT TELL")
    assert outcomes["strict"] == "DO NOT SHIP"
    assert outcomes["no-such"] == "refused"
    assert outcomes["server"] == "not here"
    assert done.code == 1
    assert json.loads((folder / "out" / "fleet.json").read_text()) == found
    loose = found["targets"][0]
    record = json.loads((folder / "out" / "loose" / "small.manifest.json").read_text())
    sqnr = record["verification"]["engine"]["outputs"][0]["sqnr_db"]
    assert loose["judged"] == "engine"
    assert loose["figures"]["SQNR of 'logits', dB"] == {
        "value": sqnr["value"],
        "between": [sqnr["low"], sqnr["high"]],
    }
    ranges = json.loads((folder / "out" / "small.calibration.json").read_text())
    for name in ("loose", "strict"):
        manifest = json.loads((folder / "out" / name / "small.manifest.json").read_text())
        assert manifest["recipe"]["calibration"].endswith("small.calibration.json")
        assert manifest["calibration"]["method"] == ranges["method"] == "entropy"
    networks = [(folder / "out" / n / "small.int8.onnx").read_bytes() for n in ("loose", "strict")]
    assert networks[0] == networks[1]
    assert "not here" in (folder / "fleet.html").read_text()


def test_what_was_not_built_is_an_error_that_quiet_shows(folder, capsys) -> None:
    done = fleet(capsys, folder, BUILD + TARGETS, "--quiet")
    assert done.out == ""
    lines = [line.removeprefix("trtbuild: ") for line in done.err.splitlines()]
    assert [line.partition(":")[0] for line in lines] == ["no-such", "server"]
    assert "'Nothing*' matches no node" in lines[0]


def test_the_table_shows_the_accuracy_that_limits_are_on_and_of_which_network() -> None:
    figures = {
        "box agreement, %": FigureValue(97.0, (95.0, 99.0)),
        "top-1, %": FigureValue(70.0, (60.0, 80.0)),
        "top-1 lost, points": FigureValue(0.5, (-0.5, 1.5)),
        "SQNR of 'y', dB": FigureValue(31.0, (30.0, 32.0)),
    }
    target = FleetTarget(
        "edge", FleetOutcome.SHIP, "", engine="n.plan", judged="TensorRT form", figures=figures
    )
    (table, _) = fleet_report(Fleet("n.onnx", "", (target,))).sections[0].blocks
    assert isinstance(table, Table)
    row = dict(zip((column.title for column in table.columns), table.rows[0], strict=True))
    assert row["accuracy"] == (
        "box agreement 97 % (95 to 99)",
        "top-1 lost 0.5 points (-0.5 to 1.5)",
    )
    assert row["of"] == "TensorRT form"


def dies() -> None:
    """Work that kills its process."""
    os._exit(1)


def test_targets_are_built_on_ray_at_the_same_time(folder, capsys, monkeypatch) -> None:
    from trtbuild.runtime import ray_cluster

    monkeypatch.setattr(ray_cluster, "_RETRIES", 0)
    outputs = open_session(folder / "small.onnx").run({"image": np.load(folder / "others.npy")})
    np.save(folder / "labels.npy", outputs["logits"].argmax(1))
    (folder / "judge.py").write_text("def near(float_outputs, outputs, labels, names): return 1.0")
    # paths of every kind: workers run in other folders
    monkeypatch.chdir(folder)
    text = BUILD + 'labels = "labels.npy"\n[build.task]\njudge = "judge.py:near"\n' + TARGETS
    alone = fleet(capsys, Path(), text, "--json").json["targets"]
    shutil.rmtree("out")
    with ray_of_two():
        together = fleet(capsys, Path(), text, "--json", "--ray").json["targets"]
        with (
            ray_cluster.joined(None) as cluster,
            pytest.raises(MissingError, match="lost a worker"),
        ):
            list(cluster.results(dies, [()]))
    for one, other in zip(alone, together, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_no_cluster_to_be_found_is_said_before_the_calibration(folder, capsys) -> None:
    pytest.importorskip("ray.util", reason="needs Ray")
    done = fleet(capsys, folder, BUILD + TARGETS, "--ray", "auto")
    assert done.code == MissingError("").exit_code
    assert "the Ray cluster 'auto' cannot be reached" in done.err
    assert not (folder / "out").exists()


def test_an_address_where_no_cluster_answers_is_said_before_the_calibration(folder, capsys) -> None:
    pytest.importorskip("ray.util", reason="needs Ray")
    with socket.socket() as free:  # a port in use on which nothing listens
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        done = fleet(capsys, folder, BUILD + TARGETS, "--ray", address)
    assert done.code == MissingError("").exit_code
    assert f"the Ray cluster '{address}' cannot be reached" in done.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BUILD, "names no target"),
        (BUILD + "[target.a]\n[target.b]\nmodel = 'other.onnx'\n", "belong to [build]"),
        (BUILD + "[target.a]\noutput = 'x'\n", "-o; leave it out"),
        (BUILD + "[fleet]\n[target.a]\n", "the table 'fleet'"),
        (BUILD + "[target.a]\nbacken = 'x'\n", "backen"),
        (BUILD.replace('verify_data = "others.npy"\n', "") + "[target.a]\n", "verify_data"),
        (BUILD.replace("others", "gone") + "[target.a]\n", "gone.npy' does not exist."),
        *(
            (BUILD + f"[target.{name}]\n", "cannot name a folder")
            for name in ("''", "'.'", "'..'", "'a/b'", r'"a\u0000b"', r'"a\nb"')
        ),
        *(
            (BUILD + f"[target.'{name}']\n", "a file that the fleet writes")
            for name in ("fleet.json", "small.calibration.json")
        ),
        ("no toml", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(folder, capsys, text, said) -> None:
    shutil.copy(folder / "small.onnx", folder / "other.onnx")
    assert said in fleet(capsys, folder, text).sentence
    assert not (folder / "out").exists()


def test_the_example_of_the_page_is_a_fleet(tmp_path) -> None:
    page = (PROJECT / "docs" / "recipe.md").read_text()
    (example,) = (
        block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[target." in block
    )
    shutil.copytree(PROJECT / "samples", tmp_path / "samples")
    (tmp_path / "targets.toml").write_text(example)
    found = read_fleet(tmp_path / "targets.toml", tmp_path / "out")
    assert list(found) == ["cpu", "rtx-40", "rtx-50", "server"]
    assert found["rtx-50"].gate.min_sqnr == 25.0
    assert found["rtx-50"].tensorrt.compute_capabilities == ("12.0",)
    assert found["cpu"].gate.min_sqnr == 20.0


def test_a_reason_stands_beside_its_target_on_a_narrow_terminal(
    folder, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = fleet(capsys, folder, BUILD + '[target.server]\nbackend = "tensorrt"\n').out
    [line] = [line for line in said.splitlines() if line.startswith("server: ")]
    assert "TensorRT is not installed" in line
