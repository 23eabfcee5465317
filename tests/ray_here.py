"""A Ray cluster on this machine, for tests of what works on one."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ray_of_two"]


@contextlib.contextmanager
def ray_of_two() -> Iterator[None]:
    """Run the block with a Ray cluster of two processors in this process; skip the test without Ray.

    The cluster is started here, even where RAY_ADDRESS names another one. Its files are not in TMPDIR, since
    names of sockets must be short. Ray gives its own processes 30 s to start, which may be too short on a
    machine busy with other tests: it is started up to three times, then its error is the test's. The block
    itself is not repeated.
    """
    pytest.importorskip("ray.util", reason="needs Ray")
    import ray

    place = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="ray", dir=place, ignore_cleanup_errors=True) as folder:
        for tries_left in (2, 1, 0):
            try:
                ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False,
                         _temp_dir=folder)  # fmt: skip
                break
            except Exception as error:
                ray.shutdown()
                if not tries_left or "timed out" not in str(error):
                    raise
        try:
            yield
        finally:
            ray.shutdown()
