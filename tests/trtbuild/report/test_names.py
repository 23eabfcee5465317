"""Names from files are printed unchanged by every command, and never make a command fail."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.command import FAST, trtbuild
from trtbuild.toml_files import read_toml
from trtbuild.visible import visible

# Markup of rich, which would raise, vanish or colour; HTML; XML; control characters of a terminal.
HOSTILE = ("[/x]", "run [int8]", "[red]a", "<b>&amp;", "a\x1b[31mb", "c\u202ed", ":smile:")


def network(path: Path, names: tuple[str, ...]) -> None:
    """A network of one Conv, with `names` for its folder, tensors and nodes."""
    conv, inner, output = names
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.standard_normal((8, 3, 3, 3)).astype("f"), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], [inner], name=conv),
            helper.make_node("Relu", [inner], [output], name=f"{conv} relu"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 8, 6, 6])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@pytest.fixture(scope="module", params=[HOSTILE[:3], HOSTILE[3:6]], ids=["markup", "controls"])
def names(request) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def folder(names, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "[bold]in"
    folder.mkdir()
    network(folder / "[net].onnx", names)
    random = np.random.default_rng(1)
    np.savez(folder / "[data].npz", x=random.standard_normal((40, 3, 8, 8)).astype("f"))
    return folder


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")
    return folder


def seen(done, *texts: str) -> None:
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    for text in texts:
        assert visible(text) in done.out, text
    assert "\x1b[31m" not in done.out


@pytest.fixture
def built(here, capsys) -> Path:
    if not (here / "[out]").exists():
        done = trtbuild(
            *(capsys, "engine", "[net].onnx", "--int8", "--data", "[data].npz", "-o", "[out]"),
            *(*FAST, "--no-latency", "--report", "page.html", "--junit", "junit.xml"),
        )
        seen(done, "[out]/[net].manifest.json")
        (here / "said").write_text(done.out, encoding="utf-8")
    return here / "[out]"


def test_engine(built, here, names) -> None:
    said = (here / "said").read_text(encoding="utf-8")
    page = (here / "page.html").read_text(encoding="utf-8")
    assert visible(names[2]) in said
    assert "\x1b" not in page
    assert "\u202e" not in page.split("<h2>Record")[0]
    assert "<b>" not in page
    root = ET.parse(here / "junit.xml").getroot()  # noqa: S314 - our own file
    cases = [case.get("name") for case in root.iter("testcase")]
    assert any(visible(names[2]) in case for case in cases)


def test_verify(built, here, capsys, names) -> None:
    data = ("--data", "[data].npz", "--layers", "--report", "v.html")
    done = trtbuild(capsys, "verify", "[net].onnx", built / "[net].int8.onnx", *data)
    seen(done, names[0], names[2], "[net].int8.onnx")
    done = trtbuild(
        *(capsys, "verify", "[net].onnx", built / "[net].int8.onnx", *data, "--sensitivity"),
        *("--bisect", "--min-sqnr", 90),
    )
    assert done.code == 1
    assert visible(names[2]) in done.out


def test_bench(built, capsys) -> None:
    done = trtbuild(
        *(capsys, "bench", built / "[net].int8.onnx", "--seconds", 0.1, "--warmup-ms", 1)
    )
    seen(done, "[net].int8.onnx")


@pytest.mark.parametrize("more", [(), ("--all-methods",), ("--until-stable", "0.01%")])
def test_calibrate_and_crosscheck(here, capsys, names, more) -> None:
    run = ("--data", "[data].npz", "-o", "[c].json", "--cache", "[c].cache", *more)
    done = trtbuild(capsys, "calibrate", "[net].onnx", *run, "--plot", "[plots]")
    seen(done, "x", names[2], "[c].json")
    for plot in (here / "[plots]").iterdir():
        ET.parse(plot)  # noqa: S314 - our own file
    done = trtbuild(capsys, "crosscheck", "[c].json", "minmax", "--all", "--plot", "[plots]")
    seen(done, names[2], "[c].json")


def test_cache(here, capsys, names) -> None:
    text = "TRT-100300-EntropyCalibration2\n" + "".join(f"{n}: 3d01020c\n" for n in names)
    Path("[a].cache").write_text(text, encoding="utf-8")
    Path("[b].cache").write_text("TRT-100300-EntropyCalibration2\n[/]: 3d01020c\n")
    seen(trtbuild(capsys, "cache", "show", "[a].cache"), *names, "[a].cache")
    done = trtbuild(capsys, "cache", "diff", "[a].cache", "[b].cache")
    assert done.code == 1
    for name in (*names, "[/]", "[a].cache"):
        assert visible(name) in done.out
    done = trtbuild(capsys, "cache", "convert", "[a].cache", "[net].onnx", "-o", "[q].onnx")
    assert done.code in (0, 2)
    assert "Traceback" not in done.err


def test_quantize_and_optimize(here, capsys, names) -> None:
    seen(trtbuild(capsys, "quantize", "[net].onnx", "--list"), names[0])
    done = trtbuild(capsys, "optimize", "[net].onnx", "[o].onnx", "--explain")
    seen(done)


def test_rebuild(built, here, capsys, names) -> None:
    manifest = built / "[net].manifest.json"
    done = trtbuild(capsys, "rebuild", manifest, "-o", "[again]")
    assert done.code == 0, done.err
    changed = manifest.read_text(encoding="utf-8").replace('"batch_size": 8', '"batch_size": 4')
    record = json.loads(changed)
    record["versions"][f"{names[1]}\n"] = names[2]
    other = built / "[other].manifest.json"
    other.write_text(json.dumps(record), encoding="utf-8")
    done = trtbuild(capsys, "rebuild", other, "-o", "[again]")
    assert visible(names[1]) in done.out
    assert "\x1b[31m" not in done.out


def test_init_and_the_recipe_that_it_writes(here, capsys, names) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["a\nint8 = 5"], ["y"])],
        "g",
        [helper.make_tensor_value_info("a\nint8 = 5", TensorProto.FLOAT, [names[2], 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [names[2], 3])],
    )
    folder = here / f"{names[1]}\x7f\U0001f600".replace("/", "")
    folder.mkdir(exist_ok=True)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "net.onnx")
    done = trtbuild(capsys, "init", folder / "net.onnx", "-o", "[r].toml")
    assert done.code == 0, done.err
    found = read_toml(here / "[r].toml", "recipe")
    assert found["model"] == f"{folder.name}/net.onnx"
    assert found["int8"] is True


def test_inspect(here, capsys, names) -> None:
    layers = [
        {"Name": f"{name}\n", "LayerType": name, "TacticName": name, "Outputs": []}
        for name in (*names, "\udcff")
    ]
    (here / "[l].json").write_text(json.dumps({"Layers": layers}), encoding="utf-8")
    for more in ((), ("--all",)):
        seen(trtbuild(capsys, "inspect", "[l].json", *more), *names, "\udcff")
    assert trtbuild(capsys, "inspect", "[l].json", "--json").code == 0


def test_doctor(here, capsys, monkeypatch, names) -> None:
    folder = here / f"tmp {names[2]}"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    done = trtbuild(capsys, "doctor")
    assert done.code in (0, 3)
    assert "Traceback" not in done.err
    assert "\x1b[31m" not in done.out
    assert "\u202e" not in done.out


def test_prune(here, capsys, names) -> None:
    pytest.importorskip("torch_pruning", reason="needs PyTorch, the extra 'torch'")
    (here / "nets.py").write_text(
        "import torch\n"
        "def make():\n"
        "    net = torch.nn.Sequential()\n"
        f"    net.add_module({names[0]!r}, torch.nn.Conv2d(3, 8, 3))\n"
        f"    net.add_module({names[1]!r}, torch.nn.ReLU())\n"
        f"    net.add_module({names[2]!r}, torch.nn.Conv2d(8, 4, 3))\n"
        "    return net\n",
        encoding="utf-8",
    )
    sys.modules.pop("nets", None)
    try:
        run = ("prune", "nets:make", "--input", "1x3x8x8", "-o", "[p]")
        seen(trtbuild(capsys, *run, "--list-groups"), names[0], names[2])
        seen(trtbuild(capsys, *run, "--prune", "0.5"), names[0], "[p]")
    finally:
        sys.modules.pop("nets", None)


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_file_name_that_is_no_text(here, capsys) -> None:
    name = os.fsdecode(b"c\xff.json")
    run = ("[net].onnx", "--data", "[data].npz", "-o", name)
    seen(trtbuild(capsys, "calibrate", *run), name)
    assert trtbuild(capsys, "calibrate", *run, "--json").json["files"] == [name]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b", "\\x1b"),
        ("\udcff", "\\udcff"),
        ("\ufffe", "\\ufffe"),
        ("é 漢", "é 漢"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text, shown) -> None:
    assert visible(text) == shown
