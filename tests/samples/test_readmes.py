"""The commands of the samples' READMEs succeed: with ranges by a rule, and every night as written."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trtbuild
from tests.command import FAST
from trtbuild.cli.main import run

HAS_TORCH = importlib.util.find_spec("torch") is not None
PROJECT = Path(__file__).resolve().parents[2]

# Sample -> its network.
SAMPLES = {"detector": "shapes", "ocr": "lines", "sentences": "sentences"}


def commands(readme: Path) -> list[list[str]]:
    """The words of every line in the README's fenced shell blocks."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(
    "effort", [FAST, pytest.param((), marks=pytest.mark.nightly, id="as it stands")]
)
@pytest.mark.parametrize("name", SAMPLES)
def test_the_commands_of_a_sample_lead_to_an_engine_that_can_be_shipped(
    name, effort, tmp_path, monkeypatch
) -> None:
    sample = PROJECT / "samples" / name
    shutil.copytree(sample, tmp_path / "samples" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    found = commands(sample / "README.md")
    assert found
    for program, *arguments in found:
        if program == "trtbuild":
            assert run([*arguments, "-q", "--no-latency", *effort]) == 0
        elif "torch" not in Path(arguments[0]).read_text(encoding="utf-8") or HAS_TORCH:
            subprocess.run([sys.executable, *arguments], check=True)
    manifest = trtbuild.read_manifest(tmp_path / "out" / name / f"{SAMPLES[name]}.manifest.json")
    assert manifest.ruling.word == "SHIP"
