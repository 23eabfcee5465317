"""Warnings of other packages and of users' code: one escaped line each, once, also with ``--quiet``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRESS, trtbuild
from tests.models import NETWORKS

if TYPE_CHECKING:
    from pathlib import Path

DATA = """
import logging, warnings
import numpy as np

def samples():
    for seed in range(8):
        warnings.warn("old\\n  and \\x1b[31m red")
        logging.getLogger("trtbuild.of.the.users").warning("seen \\x07")
        yield {"x": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_warnings_of_others_are_lines_of_ours(
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.onnx").write_bytes(NETWORKS["opset_13"].proto.SerializeToString())
    (tmp_path / "warns.py").write_text(DATA)
    arguments = ("calibrate", "n.onnx", "--data", "warns.py:samples", "-o", "c.json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        told = trtbuild(capsys, *arguments, "--workers", workers)
        quiet = trtbuild(capsys, *arguments, "--workers", workers, "--quiet")
    said = [line for line in told.err.splitlines() if not PROGRESS.fullmatch(line)]
    lines = [
        "trtbuild: warning: UserWarning: old and \\x1b[31m red",
        "trtbuild: warning: seen \\x07",
    ]
    assert (told.code, sorted(said)) == (0, lines)
    assert (quiet.code, sorted(quiet.err.splitlines()), quiet.out) == (0, lines, "")
