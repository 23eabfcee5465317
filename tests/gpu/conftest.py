"""Tests that need a GPU, some also TensorRT's native library; each skip says what is missing.

    python -m pytest tests/gpu

runs everything that the machine allows. Nothing here uses the stand-ins of `tests/tensorrt_stub`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PROJECT, SHARED
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.runtime.cuda import PROVIDERS, cuda_driver
from trtbuild.runtime.cuda.choose import installed_providers
from trtbuild.runtime.tensorrt.versions import TensorRT, installed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def gpu() -> str:
    """Name of the GPU; skips without one."""
    driver = cuda_driver()
    if driver.problem:
        pytest.skip(f"needs an NVIDIA GPU: {driver.problem}")
    return driver.gpus[0].name


@pytest.fixture(params=list(PROVIDERS))
def provider(request: pytest.FixtureRequest, gpu: str) -> str:
    """Each provider of device memory whose package is installed."""
    if request.param not in installed_providers():
        pytest.skip(f"needs {request.param}: {PROVIDERS[request.param][1]}")
    if request.param == "torch":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a torch that was built for CUDA")
    return str(request.param)


@pytest.fixture(scope="session")
def tensorrt(gpu: str) -> TensorRT:
    """The installed TensorRT; skips where it does not work."""
    found = TensorRTBackend().availability()
    if not found.usable:
        pytest.skip(f"needs TensorRT: {found.detail}")
    return installed()


@dataclass(frozen=True)
class Trained:
    """A trained network, its preprocessing, images that calibrate and labelled images that verify."""

    model: Path
    preprocess: Path
    calibration: Path
    verification: Path


RESNET20_PREPROCESS = """
layout = "NCHW"
color = "RGB"
scale = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """ResNet20 on CIFAR-10 where it is at hand, else the quickstart's network."""
    folder = SHARED / "data" / "cifar10"
    if not (folder / "resnet20.onnx").is_file():
        sample = PROJECT / "samples" / "quickstart"
        return Trained(
            sample / "digits.onnx",
            sample / "digits.toml",
            sample / "calibration.npz",
            sample / "test.npz",
        )
    preprocess = tmp_path_factory.mktemp("resnet20") / "cifar10.toml"
    preprocess.write_text(RESNET20_PREPROCESS)
    return Trained(
        folder / "resnet20.onnx",
        preprocess,
        folder / "calib_jpeg_1024.npz",
        folder / "test_jpeg_2000.npz",
    )
