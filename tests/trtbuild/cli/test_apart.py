"""What ends the process of a command by a signal is said by the one that waits for it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.command import HANGS_S, await_text
from tests.models import NETWORKS

PROJECT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")

DIVIDES = """
<ir_version: 8, opset_import: ["" : 13]>
divides (float[n, 4] x, int32[n, 1] many) => (float[n, 4] y)
<float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, int32[1] by = {-1}>
{
    product = MatMul(x, w)
    share = Div(many, by)
    floats = Cast <to = 1> (share)
    y = Add(product, floats)
}
"""

DYING = """
import numpy as np, os, signal
def data():
    yield {"x": np.zeros((1, 3, 8, 8), "float32")}
    os.kill(os.getpid(), getattr(signal, os.environ["ENDS_BY"]))
"""

WAITING = """
import os, pathlib, time
def data():
    try:
        pathlib.Path("there").write_text(str(os.getpid()))
        time.sleep(60)
        yield {}
    finally:
        time.sleep(0.1)
        pathlib.Path("cleaned").touch()
"""


def heed_signals():
    """A shell's job in the background has Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "trtbuild", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        start_new_session=True,
        preexec_fn=heed_signals,  # noqa: PLW1509
    )


def complaint(process):
    said, complained = process.communicate(timeout=HANGS_S)
    assert said == ""
    assert "Traceback" not in complained
    return complained


@pytest.mark.skipif(platform.machine() != "x86_64", reason="others wrap around")
def test_a_division_that_the_processor_refuses_is_named_with_the_sample(tmp_path):
    onnx.save(onnx.parser.parse_model(DIVIDES), tmp_path / "n.onnx")
    many = np.arange(10, dtype=np.int32)[:, None]
    many[5] = np.iinfo(np.int32).min  # of which the opposite is no int32
    np.savez(tmp_path / "d.npz", x=np.ones((10, 4), np.float32), many=many)
    process = start(tmp_path, "calibrate", "n.onnx", "--data", "d.npz", "-o", "r.json")
    said = complaint(process)
    assert process.returncode == 2
    assert "SIGFPE" in said
    assert "ran 'n.onnx' on 'd.npz[5]'" in said


@pytest.mark.parametrize(("name", "code"), [("SIGBUS", 2), ("SIGSEGV", 4), ("SIGKILL", 137)])
def test_the_end_by_a_signal_is_a_sentence_and_a_code(tmp_path, name, code):
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    (tmp_path / "dying.py").write_text(DYING)
    given = ("calibrate", model, "--data", "dying.py:data", "-o", "r.json")
    process = start(tmp_path, *given, ENDS_BY=name)
    said = complaint(process)
    assert process.returncode == code
    assert f"trtbuild by {name}: " in said


@pytest.fixture
def waiting(tmp_path):
    """A command that waits for its data, and the number of the process in which it does."""
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    (tmp_path / "waiting.py").write_text(WAITING)
    given = ("calibrate", model, "--data", "waiting.py:data", "-o", "r.json")
    process = start(tmp_path, *given)
    yield process, int(await_text(tmp_path / "there", process))
    process.kill()
    process.communicate()


def test_an_interrupt_of_both_comes_once_and_lets_it_clean_up(waiting, tmp_path):
    process, _ = waiting
    os.killpg(process.pid, signal.SIGINT)
    assert "interrupted" in complaint(process)
    assert process.returncode == 130
    assert (tmp_path / "cleaned").exists()


def test_who_is_asked_to_end_and_dies_of_it_was_asked(waiting):
    """A native library may not survive a Ctrl-C while it is loaded."""
    process, at_work = waiting
    os.kill(at_work, signal.SIGSTOP)  # or it ends well
    process.terminate()
    os.kill(at_work, signal.SIGSEGV)
    os.kill(at_work, signal.SIGCONT)
    assert "SIGTERM" in complaint(process)
    assert process.returncode == 143


def test_who_waits_takes_the_work_along(waiting):
    process, at_work = waiting
    assert process.pid != at_work
    process.kill()
    process.communicate(timeout=30)  # returns when both have ended: they hold the same pipes


def test_a_debugger_keeps_it_in_one_process(tmp_path):
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    (tmp_path / "waiting.py").write_text(WAITING.replace("60", "0"))
    run = "import sys; sys.settrace(lambda *_: None); from trtbuild.cli.main import main; main()"
    given = ("calibrate", str(model), "--data", "waiting.py:data", "-o", "r.json")
    process = subprocess.Popen(
        [sys.executable, "-c", run, *given],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    process.communicate(timeout=HANGS_S)
    assert (tmp_path / "there").read_text() == str(process.pid)
