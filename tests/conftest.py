"""Fixtures and settings of all tests."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.kept_process import KeptProcess
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.runtime.tensorrt.versions import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

# OpenBLAS and OpenMP (torch) spin while they wait for their threads, which on small arrays costs more than
# the work. Both read this when they are loaded, here and in all processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What a shell says of its terminal must not change what a command prints, here or in processes of tests.
for _name in ("CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)

# A change must not fail by examples that it did not choose, nor on a slow machine: each run of a property has
# the same examples, and no limit of time. `--hypothesis-profile=search --hypothesis-seed=N` tries others.
settings.register_profile(
    "search", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TRTBUILD_SHARED", PROJECT.parent / "shared"))


def pytest_collection_finish() -> None:
    """Exclude from garbage collection all modules and tests, which stay until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)  # the default spends a tenth of the tests' time


@pytest.fixture(autouse=True, scope="session")
def nothing_installed() -> Iterator[None]:
    """Q/DQ are placed for no particular compiler, whatever is installed, unless a test names one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbuild.target.is_importable", lambda _: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def parses_here() -> Iterator[None]:
    """NVIDIA's parser checks every INT8 form of a build in this process.

    The usual process of its own takes longer than the rest of a small network's build.
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
def searches_to_the_end() -> Iterator[None]:
    """No clock ends the search for ranges: on a busy machine, a build would end with others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbuild.jobs.ranges.seconds_for", lambda *_: math.inf)
        yield


@pytest.fixture(autouse=True, scope="session")
def compares_in_one_process() -> Iterator[None]:
    """The graph passes compare networks in a process that is started once, not once per test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbuild.passes.optimizer.IsolatedProcess", KeptProcess)
        patch.setattr("trtbuild.runtime.isolated.started_ahead", lambda _: contextlib.nullcontext())
        yield
    KeptProcess.end_all()


@pytest.fixture(autouse=True, scope="session")
def torch_makes_its_operators_once() -> Iterator[None]:
    """Keep torch's ONNX functions of all operators: remaking them is half of a small export's time."""
    if "torch" not in sys.modules:  # no test of torch was collected
        yield
        return
    import torch.onnx

    export = torch.onnx.export

    def with_kept_operators(*given: Any, **named: Any) -> Any:
        from torch.onnx._internal.exporter import _registration

        apis = _registration.onnxscript_apis
        if not hasattr(apis.get_torchlib_ops, "cache_info"):
            patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        return export(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", with_kept_operators)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real networks, images and cases; skips the test if it is missing."""
    if not (SHARED / "README.md").is_file():
        pytest.skip(f"needs the folder of real networks and images, '{SHARED}'")
    return SHARED
