"""What all tests share: where the real networks and images are."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kept_process import KeptProcess
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.runtime.tensorrt.versions import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TRTBUILD_SHARED", PROJECT.parent / "shared"))


@pytest.fixture(autouse=True, scope="session")
def nothing_installed() -> Iterator[None]:
    """Q/DQ are placed for no compiler in particular, whichever is installed, unless a test names one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbuild.target.is_importable", lambda _: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def parses_here() -> Iterator[None]:
    """NVIDIA's parser looks at every INT8 form that a build makes, in this process.

    A process for it alone, as outside of tests, takes longer than all else that a small network needs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbuild.jobs.check.find_refusals_apart", find_refusals)
        patch.setattr(
            "trtbuild.jobs.check.parser_ahead",
            lambda product: contextlib.nullcontext(
                lambda path, plugins: find_refusals(installed(product), path, plugins)
            ),
        )
        yield


@pytest.fixture(autouse=True, scope="session")
def compares_in_one_process() -> Iterator[None]:
    """The graph passes compare networks in a process that is started once, not once a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbuild.passes.optimizer.IsolatedProcess", KeptProcess)
        patch.setattr("trtbuild.runtime.isolated.started_ahead", lambda _: contextlib.nullcontext())
        yield
    KeptProcess.end_all()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real networks, images and cases; skips the test where it is absent."""
    if not (SHARED / "README.md").is_file():
        pytest.skip(f"needs the folder of real networks and images, '{SHARED}'")
    return SHARED
