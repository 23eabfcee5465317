"""The commands of the sample, run as written: half of the work, and hardly an image lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.samples.test_readmes import commands
from trtbuild.cli.main import run

pytest.importorskip("torch_pruning")
pytest.importorskip("sklearn")

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "compress"


@pytest.mark.nightly
def test_the_sample_ends_within_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SAMPLE, tmp_path / "samples" / "compress")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (_, *dense), (_, *compress) = commands(SAMPLE / "README.md")
    subprocess.run([sys.executable, *dense], check=True)
    assert run([*compress, "-q"]) == 0
    record = json.loads((tmp_path / "out/compress/small/compression.json").read_text())
    assert record["met"] is True
    first, last = record["done"][0]["points"][0], record["done"][-1]["points"][-1]
    assert last["stage"] == "engine"
    assert last["macs"] <= 0.5 * first["macs"]
    assert last["weight_bytes"] < 0.3 * first["weight_bytes"]
