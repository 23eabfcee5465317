"""Work on a Ray cluster: functions and what they share go out, results come back as they are done.

A thin layer: what is sent must be pickled, and files must be readable under the same paths on all machines.
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

# How long an address may take to answer at all; Ray itself asks it for minutes.
_ANSWERS_WITHIN_S = 5.0

# A task whose worker was killed is tried again so often.
_RETRIES = 3


class Cluster:
    """A Ray cluster that this process has joined."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @property
    def num_cpus(self) -> int:
        """How many processors it has, at least 1."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def share(self, value: Any) -> Any:
        """Return what stands for `value` in tasks; it is sent to each machine once."""
        return self._ray.put(value)

    def results(
        self, function: Callable[..., _T], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, _T]]:
        """Yield (number, result) of every task as it is done.

        Args:
            function: what a worker does; it can be pickled.
            tasks: the arguments of each call; what `share` gave stands for its value.

        Raises:
            TrtbuildError: what a task raised.
            MissingError: workers died, again and again, such as of too little memory.
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
    """Do nothing, unless Ray is not there or nothing answers at HOST:PORT; other addresses Ray looks up.

    Args:
        address: as `joined` takes it.

    Raises:
        MissingError: so it is; within seconds.
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
        import ray.util  # any folder of the name would do for `import ray`
    except ImportError as error:
        raise MissingError("--ray needs Ray: pip install 'trtbuild[ray]'.") from error
    return ray


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[Cluster]:
    """Join a cluster for the block; one that was joined before is left alone.

    Args:
        address: of the cluster; None starts one on this machine.

    Raises:
        MissingError: Ray is not installed, or the cluster cannot be reached.
    """
    check_address(address)
    ray = _ray()
    before = ray.is_initialized()
    try:
        if not before:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).rstrip(". ")
        raise MissingError(f"the Ray cluster '{address}' cannot be reached: {reason}.") from error
    try:
        yield Cluster(ray)
    finally:
        if not before:
            ray.shutdown()


@contextlib.contextmanager
def staying_joined(asked: str | None) -> Iterator[None]:
    """Stay in a cluster for the block, so that each `joined` in it finds one: starting Ray takes seconds.

    Args:
        asked: the address that `--ray` got, empty for a cluster started here; None where it was not given.

    Raises:
        MissingError: as `joined`.
    """
    if asked is None:
        yield
        return
    with joined(asked or None):
        yield
