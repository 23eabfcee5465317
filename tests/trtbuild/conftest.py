"""One process for each TensorRT version, started when a test first asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tensorrt_stub import fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator


def _server(major: int, factory: pytest.TempPathFactory) -> Iterator[fixtures.Server]:
    server = fixtures.start(major, factory.mktemp(f"tensorrt{major}"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tensorrt10(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fixtures.Server]:
    """NVIDIA's bindings 10.16.1.11 over the stand-in library."""
    yield from _server(10, tmp_path_factory)


@pytest.fixture(scope="session")
def tensorrt11(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fixtures.Server]:
    """NVIDIA's bindings 11.4.0.106 over the stand-in library."""
    yield from _server(11, tmp_path_factory)


@pytest.fixture(params=[10, 11])
def tensorrt(request: pytest.FixtureRequest) -> fixtures.Server:
    """Both versions, one after the other."""
    server: fixtures.Server = request.getfixturevalue(f"tensorrt{request.param}")
    return server
