"""``trtbuild demo``: it shows what it claims, with files of the package only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.command import trtbuild
from trtbuild.jobs.demo import unequal_channels
from trtbuild.model import read_unchanged
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    import pytest

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "quickstart"


def test_a_broken_network_is_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    done = trtbuild(capsys, "demo", "-o", folder, "--json")
    before, after = done.json["before"], done.json["after"]
    assert (done.code, before["ruling"]["word"], after["ruling"]["word"]) == (
        *(0, "DO NOT SHIP", "SHIP"),
    )
    assert before["accuracy"]["candidate_percent"]["value"] < 50
    assert after["accuracy"]["candidate_percent"]["value"] > 98
    assert before["sqnr_db"]["value"] < after["sqnr_db"]["value"]
    page = Path(done.json["report"]).read_text()
    assert "entropy rule alone" in page
    assert (folder / "after" / "unequal.onnxruntime.onnx").is_file()
    (command,) = (line for line in done.err.splitlines() if line.startswith("by hand"))
    assert all((folder / name).is_file() for name in command.split() if name.endswith(".npz"))


def test_unequal_channels_compute_the_same() -> None:
    images = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)
    whole, changed = (read_unchanged(SAMPLE / "digits.onnx") for _ in range(2))
    before, after = (
        open_session(network, Execution.REFERENCE).run({"image": images})["scores"]
        for network in (whole, unequal_channels(changed))
    )
    np.testing.assert_array_equal(before, after)  # powers of two: the same to the bit
