"""The providers of device memory on a GPU: the scenarios that CI runs over a stand-in driver."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trtbuild.runtime.cuda import scenarios
from trtbuild.runtime.cuda import open_device


def test_bytes_come_back(provider: str) -> None:
    assert scenarios.round_trip(None, provider) == {
        "equal": True,
        "aligned": True,
        "provider": provider,
    }


def test_upload_waits(provider: str) -> None:
    assert scenarios.upload(None, provider)


def test_events_measure(provider: str) -> None:
    small, large = scenarios.timing(None, provider)
    assert 0 < small < large


def test_graph_runs_once_a_launch(provider: str) -> None:
    if provider == "pycuda":
        pytest.skip("pycuda has no CUDA graphs")
    assert scenarios.graph(None, provider) == [-1.0, 3.0, 5.0]


def test_two_devices_for_one_gpu(provider: str) -> None:
    assert scenarios.twice(None, provider)


def test_works_in_a_thread(provider: str) -> None:
    assert scenarios.from_a_thread(None, provider)


def test_torch_goes_on_beside_a_device(provider: str) -> None:
    """A device leaves torch's context and current device as they were."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a torch that was built for CUDA")
    x = torch.arange(1000.0, device="cuda")
    with open_device(provider) as device:
        device.upload(device.allocate(4000), device.pinned((1000,), np.float32).array)
        assert float((x * 2).sum()) == 999000.0
    assert float((x * 2).sum()) == 999000.0
