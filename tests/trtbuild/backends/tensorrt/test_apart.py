"""NVIDIA's library works in a process of its own: its crash does not end the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.command import comes_true, has_ended, trtbuild
from tests.trtbuild.backends.tensorrt import networks
from tests.trtbuild.verification.small_network import float_network, images
from trtbuild.backends.tensorrt import TensorRTBackend, apart
from trtbuild.backends.tensorrt.apart import find_refusals_apart, parser_ahead
from trtbuild.errors import ModelError
from trtbuild.model import write_model
from trtbuild.runtime.child import how_it_ended, start_module
from trtbuild.runtime.tensorrt.versions import RTX, TensorRT

# TensorRT for RTX 1.7.1 parses this network, and dies by SIGSEGV when it builds it.
DEADLY = """<ir_version: 11, opset_import: ["" : 23]>
    net (float[1, 4, 16, 32] x) => (float[1, 4, 16, 32] y) <float[4, 4, 1, 1] w = {WEIGHTS}> {
        q = Conv(x, w)
        y = Attention(q, q, q)
    }""".replace("WEIGHTS", ", ".join(str(1 + number / 16) for number in range(16)))


@pytest.fixture
def deadly(rtx: TensorRT, tmp_path: Path) -> Path:
    path = tmp_path / "deadly.onnx"
    onnx.save(onnx.parser.parse_model(DEADLY), path)
    return path


def test_a_builder_that_dies_is_an_answer_of_the_check(
    deadly: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trtbuild(capsys, "check", deadly).code == 0
    built = trtbuild(capsys, "check", deadly, "--build", "--json")
    assert built.code == 1
    assert "died while it built" in built.json["build"]["reason"]


def test_a_builder_that_dies_is_one_sentence_and_leaves_nothing(
    deadly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = trtbuild(
        capsys,
        "engine",
        deadly,
        "--int8",
        "--random-data",
        *("--disable", "write_out_attention"),  # as on other targets
        *("--backend", "tensorrt-rtx", "-o", out),
    ).sentence
    assert "died while it built 'deadly' (SIGSEGV" in said
    assert "no plan was written" in said
    assert "--fp16" in said
    assert list(out.iterdir()) == []


def test_a_parser_that_dies_refuses_the_network_with_its_signal(
    rtx: TensorRT, tmp_path: Path, worker: Path
) -> None:
    worker.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n")
    (refusal,) = find_refusals_apart(rtx, tmp_path / "any.onnx").refused
    assert "SIGABRT" in refusal.reason


def test_a_waiting_parser_that_dies_is_replaced(
    rtx: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start_module(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(apart, "start_module", start)
    write_model(float_network(), tmp_path / "small.onnx")
    with parser_ahead(rtx.product) as refusals_of:
        started[0].kill()
        started[0].wait()
        assert refusals_of(tmp_path / "small.onnx", ()).refused == ()
    assert len(started) == 2


def test_a_parser_started_ahead_finds_a_network_of_the_folder_left_since(
    rtx: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(float_network(), tmp_path / "small.onnx")
    monkeypatch.chdir(tmp_path.parent)
    with parser_ahead(rtx.product) as refusals_of:
        monkeypatch.chdir(tmp_path)
        assert refusals_of(Path("small.onnx"), ()).refused == ()


def test_a_worker_that_is_killed_is_reported_as_short_memory(rtx: TensorRT, worker: Path) -> None:
    worker.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(ModelError, match="memory runs out"):
        TensorRTBackend(product=RTX).build(networks.request(networks.calibrated(), None))


def test_the_error_quotes_the_last_line_of_the_worker(rtx: TensorRT, worker: Path) -> None:
    worker.write_text("import sys\nsys.exit('out of cheese')\n")
    with pytest.raises(ModelError, match=r"exit code 1, printed 'out of cheese'"):
        TensorRTBackend(product=RTX).build(networks.request(networks.calibrated(), None))


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that is started instead of the worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(apart, "_WORKER", "stand_in_worker")
    return tmp_path / "stand_in_worker.py"


# Builds until it is killed: its display of the first step never returns.
ENDLESS = """
import sys, time
from pathlib import Path
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt import apart
from trtbuild.runtime.tensorrt.versions import RTX
from tests.trtbuild.backends.tensorrt.test_native import showing

start = apart.start_module

def started(*arguments, **options):
    process = start(*arguments, **options)
    print(process.pid, flush=True)
    return process

apart.start_module = started
request = networks.request(networks.calibrated(), None)
TensorRTBackend(product=RTX).build(showing(request, lambda *step: time.sleep(3600)))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_it_ends_with_its_parent(rtx: TensorRT, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert comes_true(lambda: has_ended(child))


def test_warnings_and_log_come_through(
    rtx: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = networks.request(networks.calibrated(), None)
    details: dict[str, Any] = dict(TensorRTBackend(product=RTX).build(request).details)
    assert details["weights_bytes"]  # read from a line that TensorRT logged in the other process


def test_signals_have_names() -> None:
    assert how_it_ended(-11) == "SIGSEGV"
    assert how_it_ended(3) == "exit code 3"


def test_a_plan_for_rtx_is_built_again_and_held_against_the_first(
    rtx: TensorRT, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(float_network(), tmp_path / "small.onnx")
    for name, factor in (("images", 1), ("moved", 2)):
        np.save(tmp_path / f"{name}.npy", factor * images(3, 16))
    options = ("--int8", "--backend", "tensorrt-rtx", "--calibrator", "minmax", "--no-check")
    shapes = ("--shape", "image=1x3x12x12:4x3x12x12:8x3x12x12", "-o", tmp_path / "out")
    data = ("--data", tmp_path / "images.npy")
    built = trtbuild(capsys, "engine", tmp_path / "small.onnx", *data, *options, *shapes)
    assert built.code == 0, built.err
    monkeypatch.chdir(tmp_path)
    manifest = "out/small.manifest.json"
    again = trtbuild(capsys, "rebuild", manifest, "-o", "a folder of another length", "--json")
    # only the compiler's numbers of the plan may differ, and the comparison says so
    differ = {(one["kind"], one["name"]) for one in again.json["differences"]}
    assert differ <= {("file", "small.rtx.plan.digest")}
    assert (again.code == 0) == (not differ) == again.json["same_bytes"]
    assert bool(differ) == ("addresses" in again.json["unexplained"])
    moved = trtbuild(capsys, "rebuild", manifest, "--data", "moved.npy", "-o", "other", "--json")
    assert moved.code == 1
    kinds = {(one["kind"], one["name"]) for one in moved.json["differences"]}
    assert {("data", "calibration_digest"), ("file", "small.rtx.plan.digest")} <= kinds
    assert moved.json["networks"]["small.int8.onnx"]["nodes"]
