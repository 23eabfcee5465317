"""Work on a Ray cluster: functions and shared values go out, results come back as they finish.

A thin layer: everything that is sent must be picklable, and all machines must find files under the same
paths.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from trtbuild.errors import MissingError, TrtbuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Cluster", "check_address", "joined", "staying_joined"]

_T = TypeVar("_T")

# How long to wait for an answer from an address; Ray itself tries for minutes.
_ANSWERS_WITHIN_S = 5.0

# Number of retries of a task whose worker was killed.
_RETRIES = 3


class Cluster:
    """A Ray cluster that this process has joined."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @property
    def num_cpus(self) -> int:
        """Number of CPUs of the cluster, at least 1."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def share(self, value: Any) -> Any:
        """Return a reference to `value` for tasks; the value is sent to each machine once."""
        return self._ray.put(value)

    def results(
        self, function: Callable[..., _T], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, _T]]:
        """Yield (number, result) of each task as it finishes.

        Args:
            function: what a worker runs; must be picklable.
            tasks: the arguments of each call; a reference from `share` stands for its value.

        Raises:
            TrtbuildError: a task raised it.
            MissingError: workers died repeatedly, for example for lack of memory.
        """
        remote = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(function)
        running = {remote.remote(*arguments): number for number, arguments in enumerate(tasks)}
        while running:
            (ready, *_), _ = self._ray.wait(list(running), num_returns=1)
            try:
                yield running.pop(ready), self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise cause if isinstance(cause, TrtbuildError) else error from None
            except self._ray.exceptions.RayError as error:
                raise MissingError(f"the Ray cluster lost a worker: {error}") from error


def check_address(address: str | None) -> None:
    """Check that Ray is installed and something answers at HOST:PORT; Ray itself resolves other addresses.

    Args:
        address: as for `joined`.

    Raises:
        MissingError: Ray is missing, or nothing answers within seconds.
    """
    _ray()
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise MissingError(
            f"the Ray cluster '{address}' cannot be reached: {error}. Give the address that `ray start "
            "--head` has printed, or leave it out for a cluster that is started here."
        ) from error


def _ray() -> Any:
    try:
        import ray.util  # `import ray` alone would accept any folder of that name
    except ImportError as error:
        raise MissingError("--ray needs Ray: pip install 'trtbuild[ray]'.") from error
    return ray


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[Cluster]:
    """Join a cluster for the block, or use the one that was joined before and leave it joined.

    Args:
        address: address of the cluster; None starts one on this machine.

    Raises:
        MissingError: Ray is not installed, or the cluster cannot be reached or started.
    """
    check_address(address)
    ray = _ray()
    before = ray.is_initialized()
    try:
        if not before:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises a plain Exception if its processes start too slowly
        ray.shutdown()
        what = (
            "no Ray cluster can be started here" if address is None
            else f"the Ray cluster '{address}' cannot be reached"
        )  # fmt: skip
        raise MissingError(f"{what}: {str(error).rstrip('. ')}.") from error
    try:
        yield Cluster(ray)
    finally:
        if not before:
            ray.shutdown()


@contextlib.contextmanager
def staying_joined(asked: str | None) -> Iterator[None]:
    """Stay in a cluster for the block, so that each `joined` inside reuses it: starting Ray takes seconds.

    Args:
        asked: the address given to `--ray`, empty for a cluster started here; None without `--ray`.

    Raises:
        MissingError: as `joined`.
    """
    if asked is None:
        yield
        return
    with joined(asked or None):
        yield
