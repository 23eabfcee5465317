"""``trtbuild doctor`` on this machine; with TensorRT and a driver it is tested beside the backend."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trtbuild.cli.main import run

if TYPE_CHECKING:
    import pytest


def test_every_part_is_there_and_absence_has_a_mend(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    parts = {part["part"]: part for part in found["parts"]}
    wanted = {"Python", "numpy", "onnx", "onnxruntime", "ONNX Runtime", "CUDA driver", "TensorRT",
              "cuda-python", "pycuda", "torch", "disk"}  # fmt: skip
    assert wanted <= parts.keys()
    assert all(part["remedy"] for part in parts.values() if part["state"] != "ok")
    assert all(not part["remedy"] for part in parts.values() if part["state"] == "ok")
    assert (code == 3) == any(part["state"] == "broken" for part in parts.values())
    assert found["abilities"][0] == {
        "what": "portable INT8 engines for this CPU",
        "works": True,
        "why": "ONNX Runtime",
    }


def test_it_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor"])
    printed = capsys.readouterr().out
    assert "what mends it" in printed
    assert "works here" in printed
