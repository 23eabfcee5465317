"""Progress in a log: a line per stage on standard error, more in long stages, nothing with ``--quiet``."""

from __future__ import annotations

import numpy as np
import pytest

from tests.command import trtbuild
from tests.trtbuild.verification.small_network import images, quantized
from trtbuild.cli.progress_lines import ProgressLines
from trtbuild.model import write_model
from trtbuild.progress import step_of


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    found = Clock()
    monkeypatch.setattr("trtbuild.cli.progress_lines.time.monotonic", found.monotonic)
    return found


def test_a_stage_is_one_line_when_it_ends(capsys, clock) -> None:
    with ProgressLines() as progress:
        for done in range(4):
            progress("calibrate", done, 3)
            clock.now += 1.5
        progress("verify", 8, None)
    assert capsys.readouterr().err.splitlines() == ["calibrate: 3 of 3, 4.5 s", "verify: 8, 0.0 s"]


def test_the_steps_of_a_stage_are_one_line_with_it(capsys, clock) -> None:
    with ProgressLines() as progress:
        progress("build", 0, 1)
        for step in ("Building engine", "Timing graph nodes"):
            progress(step_of("build", step), 0, 4)
            clock.now += 0.5
            progress(step_of("build", step), 4, 4)
        progress("build", 1, 1)
        progress(step_of("build", "parse"), 4, 4)
        progress("verify", 2, None)
    assert capsys.readouterr().err.splitlines() == [
        "build: 1 of 1, 1.0 s",
        "build: parse: 4 of 4, 0.0 s",
        "verify: 2, 0.0 s",
    ]


def test_silence_in_a_long_stage_names_its_step(capsys, clock) -> None:
    with ProgressLines() as progress:
        progress("build", 0, 1)
        clock.now += 12.0
        progress(step_of("build", "Timing graph nodes"), 3, 4)
        assert capsys.readouterr().err == "build: Timing graph nodes: 3 of 4, 12.0 s\n"


def test_a_long_stage_speaks_every_ten_seconds(capsys, clock) -> None:
    with ProgressLines() as progress:
        for done in range(7):
            progress("tune", done, 7)
            clock.now += 4.0
        assert capsys.readouterr().err.splitlines() == [
            "tune: 3 of 7, 12.0 s",
            "tune: 6 of 7, 24.0 s",
        ]


def test_silence_is_broken_where_nothing_is_reported(capsys, clock) -> None:
    lines = ProgressLines()
    lines("export", 1, 1)
    capsys.readouterr()
    clock.now = 11.0
    lines._ended.wait = _one_round(lines)
    lines._break_silence()
    assert capsys.readouterr().err == "still working, 11.0 s since export\n"


def _one_round(lines):
    answers = iter((False, True))
    return lambda timeout=None: next(answers)


def test_an_error_leaves_no_line_of_a_stage_that_did_not_end(capsys) -> None:
    def work() -> None:
        with ProgressLines() as progress:
            progress("calibrate", 1, 3)
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        work()
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    write_model(quantized().source, folder / "float.onnx")
    np.savez(folder / "images.npz", image=images(3, 16))
    return folder


def test_a_build_in_a_log_names_its_stages(network, tmp_path, capsys) -> None:
    words = (
        "engine",
        network / "float.onnx",
        "--int8",
        "--data",
        network / "images.npz",
        "--no-latency",
    )
    done = trtbuild(capsys, *words, "-o", tmp_path / "a")
    stages = [line.split(":")[0] for line in done.err.splitlines()]
    assert "calibrate" in stages
    assert "verify" in stages
    quiet = trtbuild(capsys, *words, "-o", tmp_path / "b", "--quiet")
    assert quiet.err == ""
