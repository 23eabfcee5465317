"""samples/deploy/deploy.py: it installs a whole release or nothing, and rolls back."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.model import write_model

PROJECT = Path(__file__).resolve().parents[2]


def _load() -> Any:
    path = PROJECT / "samples" / "deploy" / "deploy.py"
    spec = importlib.util.spec_from_file_location("deploy_sample", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, with a fake build that writes its last option and returns its first as exit code."""
    module = _load()

    def build(staging: Path, options: list[str]) -> int:
        (staging / "net.plan").write_text(options[-1])
        manifest = {"engine": {"file": "net.plan", "backend": "tensorrt"}}
        (staging / "net.manifest.json").write_text(json.dumps(manifest))
        os.utime(staging, ns=(0, 0))  # as on a system whose times of files are far apart
        return int(options[0])

    monkeypatch.setattr(module, "build", build)
    return module


def _current(folder: Path) -> str:
    return (folder / "current" / "net.plan").read_text()


def test_a_good_engine_is_installed_and_the_one_before_kept(deploy: Any, tmp_path: Path) -> None:
    for content in ("first", "second"):
        assert deploy.main([str(tmp_path), "--", "0", content]) == 0
        assert _current(tmp_path) == content
    assert (tmp_path / "previous" / "net.plan").read_text() == "first"
    assert (tmp_path / "current").is_symlink()
    assert not list(tmp_path.glob(".staging*"))


@pytest.mark.parametrize("code", [1, 2, 3, 4, 130])
def test_a_build_that_fails_changes_nothing(deploy: Any, tmp_path: Path, code: int) -> None:
    deploy.main([str(tmp_path), "--", "0", "good"])
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert deploy.main([str(tmp_path), "--", str(code), "bad"]) == code
    assert _current(tmp_path) == "good"
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_rollback_swaps_the_current_and_the_previous_release(
    deploy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("first", "second"):
        deploy.main([str(tmp_path), "--", "0", content])
    assert deploy.main([str(tmp_path), "--rollback"]) == 0
    assert _current(tmp_path) == "first"
    assert deploy.main([str(tmp_path), "--rollback"]) == 0
    assert _current(tmp_path) == "second"
    with pytest.raises(SystemExit, match="no previous release"):
        deploy.main([str(tmp_path / "other"), "--rollback"])


def test_a_failed_check_goes_back(deploy: Any, tmp_path: Path) -> None:
    # The check reads the engine that it is given and accepts all but "bad".
    code = "import sys; sys.exit(open(sys.argv[1]).read() == 'bad')"
    check = f'{sys.executable} -c "{code}" {{engine}}'
    assert deploy.main([str(tmp_path), "--check", check, "--", "0", "bad"]) == 1
    assert not (tmp_path / "current").exists()
    assert deploy.main([str(tmp_path), "--check", check, "--", "0", "good"]) == 0
    assert deploy.main([str(tmp_path), "--check", check, "--", "0", "bad"]) == 1
    assert _current(tmp_path) == "good"


def test_old_releases_go_and_linked_ones_stay(deploy: Any, tmp_path: Path) -> None:
    for number in range(5):
        deploy.main([str(tmp_path), "--keep", "2", "--", "0", str(number)])
    kept = sorted(p.joinpath("net.plan").read_text() for p in (tmp_path / "releases").iterdir())
    assert kept == ["3", "4"]
    deploy.main([str(tmp_path), "--rollback"])
    deploy.main([str(tmp_path), "--keep", "1", "--", "0", "5"])
    assert _current(tmp_path) == "5"
    assert (tmp_path / "previous" / "net.plan").read_text() == "3"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": {"file": "n.rtx.plan", "backend": "tensorrt-rtx"}}, "runs plans of TensorRT"),
        ({"recipe": {"tensorrt": {"strip_plan": True}}}, "--strip-plan"),
        ({"engine": {"details": {"plugins": [{"file": "p.so"}]}}}, "plugins of your own"),
        ({"engine": {"details": {"profile_values": [{"size": {}}]}}}, "holds a shape"),
        ({"engine": {"not_opened": "it is for windows_amd64"}}, "windows"),
    ],
)
def test_what_infer_cannot_run_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    changes: dict[str, Any],
    reason: str,
) -> None:
    module = _load()
    engine = {"file": "net.plan", "backend": "tensorrt", **changes.get("engine", {})}

    def build(staging: Path, options: list[str]) -> int:
        text = json.dumps({**changes, "engine": engine})
        (staging / "net.manifest.json").write_text(text)
        return 0

    monkeypatch.setattr(module, "build", build)
    assert module.main([str(tmp_path), "--", "net.onnx"]) == 3
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "current").exists()


def test_a_portable_engine_of_a_real_build_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real command builds a portable engine, which infer.py cannot run; then a limit fails."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(tmp_path)
    write_model(networks.network("N"), Path("net.onnx"))
    images = np.concatenate([feeds["images"] for feeds in networks.batches(24)])
    np.savez("images.npz", images=images)
    module = _load()
    command = ["net.onnx", "--int8", "--data", "images.npz", "--no-latency", "-q",
               "--backend", "onnxruntime"]  # fmt: skip
    assert module.main(["app", "--", *command, "--min-cosine", "0.9"]) == 3
    assert "'net.onnxruntime.onnx' is for onnxruntime" in capfd.readouterr().err
    assert module.main(["app", "--", *command, "--min-sqnr", "200"]) == 1
    assert not (Path("app") / "current").exists()
    assert not list(Path("app").glob(".staging*"))
