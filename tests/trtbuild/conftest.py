"""One process for each stand-in TensorRT, started when a test first asks for it; and the real one for RTX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tensorrt_stub import fixtures, real
from trtbuild.errors import MissingError
from trtbuild.runtime.tensorrt.versions import RTX, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.runtime.tensorrt.versions import TensorRT


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


@pytest.fixture(params=["stand-in 10", "stand-in 11", "rtx"])
def native(request: pytest.FixtureRequest, tmp_path: Path) -> fixtures.Server | real.RealBuilder:
    """All parsers and builders: the stand-in under NVIDIA's bindings 10 and 11, and the real one for RTX."""
    if request.param == "rtx":
        request.getfixturevalue("rtx")
        return real.RealBuilder(tmp_path)
    server: fixtures.Server = request.getfixturevalue(f"tensorrt{request.param[-2:]}")
    return server


@pytest.fixture(scope="session")
def rtx() -> TensorRT:
    """TensorRT for RTX: NVIDIA's own parser and builder, which need no GPU; skips where it is absent."""
    try:
        return installed(RTX)
    except MissingError as error:
        pytest.skip(f"needs the extra 'rtx': {error}")
