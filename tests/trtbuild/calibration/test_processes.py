"""Worker processes: they end with their parent, however it ends, and one that dies is replaced."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import HANGS_S, comes_true, has_ended
from tests.trtbuild.calibration.small_files import called, digits

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

_DATA = """
import multiprocessing, os, pathlib, time
import numpy as np
IMAGES = np.random.default_rng(0).random((24, 1, 8, 8)).astype(np.float32)
IN_WORKER = multiprocessing.parent_process() is not None
def slow():
    for number, image in enumerate(IMAGES):
        if IN_WORKER:
            pathlib.Path(f"worker{os.getpid()}").touch()
            time.sleep(3600)
        yield {"image": image[None]}
def dies_once():
    if IN_WORKER and not pathlib.Path("died").exists():
        pathlib.Path("died").touch()
        os._exit(1)
    for image in IMAGES:
        yield {"image": image[None]}
def plain():
    for image in IMAGES:
        yield {"image": image[None]}
"""


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    network, *_ = digits(tmp_path)
    (tmp_path / "data_of_processes.py").write_text(_DATA)
    monkeypatch.chdir(tmp_path)
    return Path(network)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(model, tmp_path, number) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = (
        "-c",
        "from trtbuild.cli.main import run; raise SystemExit(run())",
        "calibrate",
        model,
    )
    parent = subprocess.Popen(
        [sys.executable, *command, "--data", "data_of_processes:slow", "--workers", "2", "-q", "-o", "c"],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert comes_true(lambda: len([*tmp_path.glob("worker*")]) == 2)
        workers = [int(path.name.removeprefix("worker")) for path in tmp_path.glob("worker*")]
        parent.send_signal(number)
        code = parent.wait(HANGS_S)
    finally:
        parent.kill()
    assert comes_true(lambda: all(map(has_ended, workers)))
    if number == signal.SIGTERM:
        assert code == 143
        assert not [*temporary.rglob("*.onnx")]


def test_a_worker_that_dies_is_replaced(model, tmp_path, capsys) -> None:
    for name in ("dies_once", "plain"):
        given = ("--data", f"data_of_processes:{name}", "--workers", 2, "-q", "-o", tmp_path / name)
        code, _, error = called(capsys, model, *given)
        assert (code, error) == (0, "")
    assert (tmp_path / "died").exists()
    assert (tmp_path / "dies_once").read_bytes() == (tmp_path / "plain").read_bytes()


def test_workers_that_all_die_are_one_sentence(model, tmp_path, capsys) -> None:
    dying = _DATA + "\nif IN_WORKER: os._exit(1)\n"
    (tmp_path / "dying_in_processes.py").write_text(dying)
    given = ("--data", "dying_in_processes:plain", "--workers", 2, "-q", "-o", "c")
    code, _, error = called(capsys, model, *given)
    assert code == 2
    assert "were lost 3 times" in error
    assert "Traceback" not in error


def test_an_error_of_a_worker_is_shown(model, tmp_path, capsys) -> None:
    failing = _DATA + "\nif IN_WORKER: raise RuntimeError('no camera here')\n"
    (tmp_path / "failing_in_processes.py").write_text(failing)
    given = ("--data", "failing_in_processes:plain", "--workers", 2, "-q", "-o", "c")
    code, _, error = called(capsys, model, *given)
    assert code == 2
    assert "no camera here" in error


def test_what_workers_need_is_small_to_send(model) -> None:
    import numpy as np

    from trtbuild.data import open_source
    from trtbuild.model.signature import TensorSpec

    spec = TensorSpec("image", np.dtype(np.float32), ("N", 1, 8, 8))
    source = open_source("data_of_processes:plain", [spec], None)
    assert pickle.loads(pickle.dumps(source)).index.digest == source.index.digest


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no such masks")
def test_ctrl_c_reaches_no_worker_not_even_one_that_imports(model, tmp_path, capsys) -> None:
    held = "SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])"
    asks = (
        _DATA + f"\nimport signal\nif IN_WORKER: assert signal.{held}, 'it would print a trace'\n"
    )
    (tmp_path / "asking_in_processes.py").write_text(asks)
    given = ("--data", "asking_in_processes:plain", "--workers", 2, "-q", "-o", "c")
    code, _, error = called(capsys, model, *given)
    assert (code, error) == (0, "")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
