"""Calibration on ONNX Runtime's CUDA provider: ranges near those found on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest

from calibrators import Calibration
from tests.trtbuild.calibration.small_files import calibrate, digits

if TYPE_CHECKING:
    from pathlib import Path


def test_ranges_are_near_those_of_the_cpu(gpu: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a torch that was built for CUDA")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    found = []
    for device in ("cpu", "cuda"):
        path = tmp_path / device
        arguments = (*digits(tmp_path), "-q", "--calibrator", "minmax", "--calibrate-on", device)
        assert calibrate(*arguments, "-o", path) == 0
        found.append(Calibration.from_bytes(path.read_bytes()))
    on_cpu, on_gpu = found
    assert on_gpu.amaxes == pytest.approx(on_cpu.amaxes, rel=1e-3)
    assert on_gpu.provenance["device"] == "cuda"
