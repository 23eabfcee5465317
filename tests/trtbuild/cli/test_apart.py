"""When a signal ends a command's process, the waiting process reports the reason."""

from __future__ import annotations

import contextlib
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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a command forks on Linux alone")

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
        time.sleep(3600)
        yield {}
    finally:
        time.sleep(0.1)
        pathlib.Path("cleaned").touch()
"""

# A program that works in a second process, without a command.
ALONE = """
import os, sys
sys.argv = ["trtbuild", "calibrate"]
from trtbuild.cli.apart import go_on_apart
{before}
begun = os.getpid()
go_on_apart()
{after}
"""


def heed_signals():
    """Restore signals: background jobs of a shell ignore Ctrl-C and Ctrl-\\, jobs of nohup SIGHUP."""
    for one in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors give no signal")
def test_a_division_that_the_processor_refuses_is_named_with_the_sample(tmp_path):
    onnx.save(onnx.parser.parse_model(DIVIDES), tmp_path / "n.onnx")
    many = np.arange(10, dtype=np.int32)[:, None]
    many[5] = np.iinfo(np.int32).min  # its negative is no int32
    np.savez(tmp_path / "d.npz", x=np.ones((10, 4), np.float32), many=many)
    process = start(tmp_path, "calibrate", "n.onnx", "--data", "d.npz", "-o", "r.json")
    said = complaint(process)
    assert process.returncode == 2
    assert "SIGFPE" in said
    assert "ran 'n.onnx' on 'd.npz[5]'" in said


@pytest.mark.parametrize(("name", "code"), [("SIGBUS", 2), ("SIGSEGV", 2), ("SIGKILL", 137)])
def test_the_end_by_a_signal_names_the_data_that_came_and_has_a_code(tmp_path, name, code):
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    (tmp_path / "dying.py").write_text(DYING)
    given = ("calibrate", model, "--data", "dying.py:data", "-o", "r.json")
    process = start(tmp_path, *given, ENDS_BY=name)
    said = complaint(process)
    assert process.returncode == code
    assert f"trtbuild by {name}, while " in said
    # a session may be opened at the same time, and nothing tells which of the two failed
    assert "data came from 'dying.py:data'" in said.partition(": a")[0]


@pytest.mark.parametrize(("name", "code"), [("SIGBUS", 2), ("SIGSEGV", 4), ("SIGKILL", 137)])
def test_the_end_by_a_signal_beside_data_and_networks_is_a_sentence_and_a_code(name, code):
    process = alone(f"import signal; os.kill(os.getpid(), signal.{name})")
    said = complaint(process)
    assert process.returncode == code
    assert f"trtbuild by {name}: " in said


@pytest.fixture
def waiting(tmp_path):
    """A command that waits for its data, and the process ID of the waiting work."""
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    (tmp_path / "waiting.py").write_text(WAITING)
    given = ("calibrate", model, "--data", "waiting.py:data", "-o", "r.json")
    process = start(tmp_path, *given)
    at_work = int(await_text(tmp_path / "there", process))
    handle = os.pidfd_open(at_work)
    yield process, at_work
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    process.communicate()


def test_ctrl_c_to_both_processes_is_one_and_allows_clean_up(waiting, tmp_path):
    process, _ = waiting
    os.killpg(process.pid, signal.SIGINT)
    assert "interrupted" in complaint(process)
    assert process.returncode == 130
    assert (tmp_path / "cleaned").exists()


def test_a_crash_after_sigterm_counts_as_sigterm(waiting):
    """A native library may not survive a Ctrl-C while it is loaded."""
    process, at_work = waiting
    os.kill(at_work, signal.SIGSTOP)  # so that it cannot end cleanly
    process.terminate()
    os.kill(at_work, signal.SIGSEGV)
    os.kill(at_work, signal.SIGCONT)
    assert "SIGTERM" in complaint(process)
    assert process.returncode == 143


def test_work_ends_with_the_process_that_waits_for_it(waiting):
    process, at_work = waiting
    assert process.pid != at_work
    process.kill()
    process.communicate(timeout=HANGS_S)  # returns when both have ended: they hold the same pipes


def test_a_debugger_keeps_a_command_in_one_process(tmp_path):
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    (tmp_path / "waiting.py").write_text(WAITING.replace("3600", "0"))
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


def alone(after, before="", **settings):
    return subprocess.Popen(
        [sys.executable, "-c", ALONE.format(before=before, after=after)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        **{"preexec_fn": heed_signals, **settings},
    )


@pytest.mark.parametrize(
    "before",
    [
        "",
        # from Python 3.12 on, coverage and debuggers use it
        "from types import SimpleNamespace as N; sys.monitoring = N(get_tool=lambda n: n == 1 or None)",
        # `threading` does not count such threads, nor those of CUDA
        "import _thread, time; _thread.start_new_thread(time.sleep, (60,))",
        "import cProfile; cProfile.Profile().enable()",
    ],
    ids=["alone", "monitored", "threads", "profiled"],
)
def test_threads_monitors_and_profilers_keep_a_command_in_one_process(before):
    said, _ = alone("print(begun == os.getpid())", before).communicate(timeout=HANGS_S)
    assert said.split() == [str(bool(before))]


def test_a_command_ends_where_sigchld_is_ignored():
    """A server that never waits for its children ignores SIGCHLD, and they inherit this."""
    process = alone("sys.exit(7)", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert process.wait(HANGS_S) == 7


def test_an_ignored_signal_does_not_hide_the_crash():
    process = alone(
        "print(1, flush=True); sys.stdin.read(); os.kill(os.getpid(), 8)",
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # nohup
    )
    process.stdout.read(1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=HANGS_S)
    assert "trtbuild by SIGFPE: " in said
    assert process.returncode == 2


def test_work_ends_when_its_terminal_closes():
    """A closing terminal signals only the first process of the session, as under `ssh`."""
    import pty

    leader, terminal = pty.fork()
    if not leader:
        heed_signals()
        program = ALONE.format(before="", after="import time; print(1, flush=True); time.sleep(60)")
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        os.execve(sys.executable, [sys.executable, "-c", program], env)  # noqa: S606
    os.read(terminal, 1)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]) == 128 + signal.SIGHUP


@pytest.mark.parametrize(("number", "name"), [(3, "SIGQUIT"), (24, "SIGXCPU"), (40, "signal 40")])
def test_every_fatal_signal_is_reported(number, name):
    process = alone(f"os.kill(os.getpid(), {number})")
    _, said = process.communicate(timeout=HANGS_S)
    assert f"the system ended trtbuild by {name}: " in said
    assert process.returncode == 128 + number
