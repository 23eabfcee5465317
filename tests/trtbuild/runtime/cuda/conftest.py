"""The stand-in CUDA driver with the real packages; `tests/gpu` runs the same scenarios on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tensorrt_stub import fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fixtures.Server]:
    """A process over the stand-in driver (with TensorRT 11's bindings, which these tests do not use)."""
    server = fixtures.start(11, tmp_path_factory.mktemp("cuda"))
    yield server
    server.stop()


@pytest.fixture(params=["cuda-python", "pycuda"])
def provider(request: pytest.FixtureRequest) -> str:
    """Each provider whose package works without a GPU; torch's needs a torch built for CUDA."""
    if request.param == "pycuda":
        fixtures.build_pycuda()
    return str(request.param)
