"""samples/plugins: five kinds of plug-in, installed and by module:name, and the errors for broken ones."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import trtbuild
from tests.command import trtbuild as command
from trtbuild.errors import OptionError
from trtbuild.toml_files import read_toml

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SAMPLE = SAMPLES / "plugins"
DIGITS = SAMPLES / "quickstart" / "digits.onnx"


@pytest.fixture
def importable(monkeypatch) -> None:
    """The package of the sample can be imported, as from its folder."""
    monkeypatch.syspath_prepend(SAMPLE)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_plugins"]:
        del sys.modules[name]


@pytest.fixture
def installed(importable, monkeypatch, tmp_path_factory) -> Path:
    """The sample's metadata as pip installs it: its name, its version and its entry points."""
    project = read_toml(SAMPLE / "pyproject.toml", "project")["project"]
    site = tmp_path_factory.mktemp("site")
    record = site / f"my_plugins-{project['version']}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (record / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return record


def test_one_build_with_all_of_them_and_the_same_again(
    installed, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(SAMPLE / "make_sheet.py"))["main"](str(tmp_path / "sheets"))
    built = command(
        capsys, "engine", DIGITS, "--int8", "--data", "sheet:sheets/calibration.png", "--verify-data",
        "sheet:sheets/test.png", "--calibrator", "six-sigma", "--judge", "sure-class",
        "--min-agreement", "80", "--backend", "archive", "--no-latency", "--no-tune", "-o", "out", "--json",
    )  # fmt: skip
    assert built.code == 0
    record = trtbuild.read_manifest(Path("out/digits.manifest.json"))
    assert record.engine.file == "digits.onnx.gz"
    assert record.calibration.method == "six-sigma"
    assert record.verification["engine"].task.task == "same class, and sure"
    assert record.recipe["data"]["data"] == "sheet:../sheets/calibration.png"
    assert trtbuild.rebuild(Path("out/digits.manifest.json"), tmp_path / "again").same_bytes
    verified = command(
        capsys, "verify", DIGITS, "out/digits.onnx.gz", "--backend", "archive", "--data",
        "sheet:sheets/test.png", "--min-sqnr", "15", "-q",
    )  # fmt: skip
    assert verified.code == 0


def test_a_rule_by_its_place_or_as_a_function_is_the_installed_one(installed, tmp_path) -> None:
    from my_plugins.calibrator import six_sigma

    data = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
    found = [
        trtbuild.quantize(DIGITS, data, calibrator=rule, output=tmp_path / str(number))
        for number, rule in enumerate(["my_plugins.calibrator:six_sigma", six_sigma])
    ]
    amaxes = [trtbuild.read_manifest(one.manifest).calibration.amax for one in found]
    assert amaxes[0] == amaxes[1]
    # six root mean squares of values evenly spread from 0 to 1 are more than the largest value
    assert amaxes[0]["image"] == np.float32(data.max())


def test_a_backend_as_an_object_or_a_class_is_the_installed_one(installed, tmp_path) -> None:
    from my_plugins.backend import Archive

    data = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
    found = [
        trtbuild.build(
            DIGITS, data, backend=one, calibrator="minmax", latency=False, output=tmp_path / str(i)
        )
        for i, one in enumerate(["archive", Archive(), Archive])
    ]
    assert len({one.engine.read_bytes() for one in found}) == 1
    assert {one.engine.name for one in found} == {"digits.onnx.gz"}
    record = trtbuild.read_manifest(found[1].manifest)
    assert record.recipe["backend"] == "python object: Archive"
    # no command line can name an object, so none is given
    assert record.command == ""
    assert found[1].next_step.command == "min_sqnr=20"
    with pytest.raises(OptionError, match="was a python object: Archive"):
        trtbuild.rebuild(found[1].manifest, tmp_path / "again")


def test_the_pass_runs_where_it_is_installed_or_named(importable) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> t (float[n,4] x) => (float[n,4] y) '
        "<float[4] c = {1.0, 2.0, 3.0, 4.0}> { y = Sub(x, c) }"
    )
    named = trtbuild.OptimizeOptions(enable=["my_plugins.graph_pass:WriteSubAsAdd"])
    assert dict(trtbuild.optimize(model, named).after.nodes) == {"Add": 1}
    assert dict(trtbuild.optimize(model).after.nodes) == {"Sub": 1}


def test_doctor_lists_them_and_finds_the_broken_one(installed, capsys) -> None:
    found = command(capsys, "doctor", "--json")
    listed = {one["part"]: one for one in found.json["plug_ins"]}
    assert listed["calibrator six-sigma"]["found"] == (
        "my_plugins.calibrator:six_sigma, of my-plugins 0.1.0"
    )
    assert {one["state"] for one in listed.values()} == {"ok"}
    (installed / "entry_points.txt").write_text("[trtbuild.judges]\nlost = my_plugins.no:judge\n")
    importlib.invalidate_caches()
    found = command(capsys, "doctor", "--json")
    assert found.code == 3
    assert found.json["plug_ins"][0]["state"] == "broken"
    assert "repair or uninstall my-plugins 0.1.0" in found.json["plug_ins"][0]["found"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"calibrator": "six-sigmas"}, "cannot be 'six-sigmas'"),
        ({"calibrator": "my_plugins.calibrator:gone"}, "'my_plugins.calibrator' has no 'gone'"),
        ({"calibrator": lambda histogram: -1}, "returned -1; a rule must return an amax above 0"),
        ({"calibrator": lambda histogram: 1 / 0}, "raised ZeroDivisionError"),
        ({"judge": "sure-clas"}, "no judge 'sure-clas'; did you mean 'sure-class'"),
        ({"backend": "archiv"}, "no backend 'archiv'.* did you mean 'archive'"),
        ({"backend": "my_plugins.judge:sure_class"}, "cannot be made"),
        ({"backend": 8}, "'int'.* is not a backend: it has no 'name'"),
        (
            {"backend": "my_plugins.graph_pass:WriteSubAsAdd"},
            "is not a backend: it has no 'suffix'",
        ),
        ({"enable": ["my_plugins.judge:sure_class"]}, "is no trtbuild.passes.Pass"),
    ],
)
def test_what_is_no_plug_in_is_refused_in_a_sentence(installed, given, said, tmp_path) -> None:
    data = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
    with pytest.raises(OptionError, match=said):
        trtbuild.build(DIGITS, data, output=tmp_path, latency=False, **given)
