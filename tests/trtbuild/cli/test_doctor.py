"""``trtbuild doctor`` on this machine; with TensorRT and a driver it is tested beside the backend."""

from __future__ import annotations

import json

import pytest

from trtbuild.cli.main import run
from trtbuild.jobs.doctor import abilities, examine
from trtbuild.runtime.cuda import cuda_driver


def test_every_part_is_there_and_absence_has_a_mend(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    parts = {part["part"]: part for part in found["parts"]}
    wanted = {"Python", "numpy", "onnx", "onnxruntime", "ONNX Runtime", "CUDA driver", "TensorRT",
              "TensorRT for RTX", "cuda-python", "pycuda", "torch", "disk"}  # fmt: skip
    assert wanted <= parts.keys()
    assert all(part["remedy"] for part in parts.values() if part["state"] != "ok")
    assert all(not part["remedy"] for part in parts.values() if part["state"] == "ok")
    assert (code == 3) == any(part["state"] == "broken" for part in parts.values())
    assert found["abilities"][0] == {
        "what": "portable INT8 engines for this CPU",
        "works": True,
        "why": "ONNX Runtime",
    }


@pytest.mark.usefixtures("rtx")
def test_tensorrt_for_rtx_builds_here_and_runs_only_on_a_gpu() -> None:
    works = {ability.what: ability.works for ability in abilities(examine())}
    assert works["building plans for RTX GPUs"]
    assert not (works["running plans for RTX GPUs"] and cuda_driver().problem)


def test_torch_for_the_cpu_is_not_to_be_installed_once_more() -> None:
    version = pytest.importorskip("torch").__version__
    if not version.endswith("+cpu"):
        pytest.skip("needs a build of torch for the CPU")
    (torch,) = (part for part in examine() if part.part == "torch")
    assert version in torch.found
    assert torch.remedy == "install a build of torch for CUDA"


def test_it_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor"])
    printed = capsys.readouterr().out
    assert "how to fix it" in printed
    assert "works here" in printed
