"""Deliverables besides the package: the Docker images and the GitHub Action."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which comes with mkdocs")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["build", "run"])
def test_an_image_copies_what_is_there(name: str) -> None:
    text = (PROJECT / "docker" / f"{name}.Dockerfile").read_text()
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().split() if line[0] == "!"}
    copied = [one for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for one in line.split()]
    assert copied
    assert [one for one in copied if not (PROJECT / one).exists()] == []
    assert set(copied) <= kept  # else .dockerignore hides it from Docker
    bases = re.findall(r"^FROM (\S+)$", text, re.M)
    assert all(base.startswith("nvidia/cuda:") for base in bases)


def _engine_step() -> str:
    action = yaml.safe_load((PROJECT / "action.yml").read_text())
    (step,) = (step for step in action["runs"]["steps"] if step.get("id") == "engine")
    return str(step["run"])


def _run(
    tmp_path: Path, arguments: str, result: dict[str, Any], code: int
) -> tuple[int, list[str]]:
    """Run the action's step with a fake `trtbuild` that records its arguments."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "trtbuild").write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(tmp_path / 'seen.json')!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
        f"print({json.dumps(result)!r})\nsys.exit({code})\n"
    )
    (tools / "trtbuild").chmod(0o755)
    (tools / "python").symlink_to(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "MODEL": "a net.onnx",
        "ARGUMENTS": arguments,
        "OUTPUT": "out",
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    # as a GitHub runner calls it
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", _engine_step()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    return done.returncode, json.loads((tmp_path / "seen.json").read_text())


def test_the_action_builds_and_tells(tmp_path: Path) -> None:
    result = {"ruling": {"word": "DO NOT SHIP", "why": "top-1 lost"},
              "next_step": {"why": "more effort", "command": "trtbuild engine --effort high"}}  # fmt: skip
    code, seen = _run(tmp_path, "--int8 --data 'my data.npz'", result, 1)
    assert code == 1
    assert seen[:5] == ["engine", "a net.onnx", "--int8", "--data", "my data.npz"]
    assert seen[5:] == [
        "-o",
        "out",
        "--report",
        "out/report.html",
        "--junit",
        "out/junit.xml",
        "--json",
    ]
    assert (tmp_path / "outputs").read_text() == "verdict=DO NOT SHIP\n"
    summary = (tmp_path / "summary").read_text()
    assert "top-1 lost" in summary
    assert "trtbuild engine --effort high" in summary


def test_the_action_tells_what_is_wrong(tmp_path: Path) -> None:
    code, _ = _run(tmp_path, "", {"schema": "trtbuild.error", "message": "no such file."}, 2)
    assert code == 2
    assert "no such file." in (tmp_path / "summary").read_text()
