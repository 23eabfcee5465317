"""Runs networks in a separate process, with limits: a crash there ends only that process.

ONNX Runtime divides by zero, runs out of memory or never returns for some networks and inputs; a
native fault cannot be caught in its own process. `IsolatedProcess` is this side of the pipe,
`trtbuild.runtime.isolated_worker` the other.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import ExecutionError, OutOfTimeError
from trtbuild.runtime.child import end, how_it_ended, start_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from trtbuild.model.signature import TensorSpec
    from trtbuild.runtime.session import Feeds

__all__ = ["IsolatedProcess", "IsolatedSession", "MappedWeight", "started_ahead"]

_LARGE = 20_000_000

# Processes started before they are needed.
_AHEAD: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class MappedWeight:
    """A weight that the other process maps from its file.

    Attributes:
        path: path of the file.
        offset: in bytes.
        dtype: name of its NumPy dtype.
        dims: its dims.
    """

    path: str
    offset: int
    dtype: str
    dims: tuple[int, ...]


@contextlib.contextmanager
def started_ahead(path: Path | None) -> Iterator[None]:
    """Start a process in advance for the first `IsolatedProcess` of the block.

    It takes as long to start as this process takes to import what a job needs. It ends with the block if
    it was not used.

    Args:
        path: path of the network, which need not exist; None if nothing will be compared. No process is
            started for a file of more than `_LARGE` bytes: passes rarely change such networks, and only
            changed ones are compared.
    """
    if path is None or (path.is_file() and path.stat().st_size > _LARGE):
        yield
        return
    process = _start()
    _AHEAD.append(process)
    try:
        yield
    finally:
        if process in _AHEAD:
            _AHEAD.remove(process)
            end(process)


def _start() -> subprocess.Popen[bytes]:
    return start_module("trtbuild.runtime.isolated_worker", subprocess.DEVNULL, one_thread=True)


def _taken_or_started() -> subprocess.Popen[bytes]:
    while _AHEAD:
        process = _AHEAD.pop()
        if process.poll() is None:
            return process
        end(process)  # it has ended already
    return _start()


class IsolatedProcess:
    """The other process; started when a network is first opened, and again after it has died.

    Args:
        processor_seconds: limit on a network's CPU time, for opening and all runs together; wall time would
            blame the network for a busy machine. Has no effect on Windows.
        seconds: limit on the wall time of one request.
    """

    def __init__(self, processor_seconds: float = 6.0, seconds: float = 120.0) -> None:
        self._processor_seconds = processor_seconds
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: IsolatedSession | None = None
        # weights that the other process holds, those of the network opened last, by id
        self._there: Mapping[int, ir.TensorProtocol] = {}
        self._closed = False

    def __enter__(self) -> IsolatedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(
        self, content: bytes, weights: Mapping[str, ir.TensorProtocol], patience: float = 1.0
    ) -> IsolatedSession:
        """Open a network exactly as written, on one thread.

        Args:
            content: an ONNX file's bytes.
            weights: network inputs that stay the same from run to run.
            patience: factor on the time limits.

        Raises:
            ExecutionError: ONNX Runtime refuses it.
            OutOfTimeError: opening takes too long.
        """
        return IsolatedSession(self, content, weights, patience)

    def close(self) -> None:
        """End the other process for good, even while another thread waits for it; safe to call twice."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process, self._opened = self._process, None, None
        self._there = {}
        if process is not None:
            end(process)

    def open_here(self, session: IsolatedSession) -> tuple[Any, ...]:
        """Open `session` in the other process; return its inputs, outputs and overridable initializers."""
        self._opened = None
        limit = self._processor_seconds * session.patience
        weights = {id(item): item for item in session.weights.values()}
        # weights that the network before had, too, are not sent again
        new = {key: _sent(item) for key, item in weights.items() if key not in self._there}
        keys = {name: id(item) for name, item in session.weights.items()}
        self._there = weights
        answer = self._ask(limit, ("open", session.content, keys, new), session.patience)
        self._opened = session
        return answer

    def run(self, session: IsolatedSession, feeds: Feeds) -> Mapping[str, Any]:
        """Run `session`; open it again if another one was opened since, or if the process died."""
        if self._opened is not session:
            self.open_here(session)
        outputs: Mapping[str, Any] = self._ask(None, ("run", dict(feeds)), session.patience)[0]
        return outputs

    def _ask(
        self, limit: float | None, request: tuple[Any, ...], patience: float
    ) -> tuple[Any, ...]:
        """Send a request, with a new limit on CPU time, or None to keep the present one."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._seconds * patience, process.kill)
        timer.daemon = True
        timer.start()
        try:
            pickle.dump((limit, request), process.stdin, protocol=5)
            process.stdin.flush()
            kind, *answer = pickle.load(process.stdout)  # noqa: S301 - our own process wrote it
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._died(process, in_time=timer.is_alive()) from error
        finally:
            timer.cancel()
        if kind == "error":
            reason = str(answer[0])
            raise ExecutionError(f"ONNX Runtime cannot run the network: {reason}.", reason)
        return tuple(answer)

    def _started(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None and not self._closed:
            process = self._process = _taken_or_started()
        if process is None or self._closed:  # another thread may have closed it meanwhile
            self._end()
            reason = "its process has been ended"
            raise ExecutionError(f"the network cannot be run: {reason}.", reason)
        return process

    def _died(self, process: subprocess.Popen[bytes], *, in_time: bool) -> ExecutionError:
        """The error for a process that ended without an answer."""
        process.kill()
        code = process.wait()
        self._end()
        if not in_time:
            reason = "it took too long"
            return OutOfTimeError(f"the network was given up: {reason}.", reason)
        if code == -getattr(signal, "SIGXCPU", 0):
            reason = f"it took more than some {self._processor_seconds:g} s of processor time"
            return OutOfTimeError(f"the network was given up: {reason}.", reason)
        reason = f"ONNX Runtime crashed on it ({how_it_ended(code)})"
        return ExecutionError(f"the network cannot be run: {reason}.", reason)


class IsolatedSession:
    """A network that is open in an `IsolatedProcess`.

    Attributes:
        inputs, outputs: as in `trtbuild.runtime.session.Session`.
        overridable: names of initializers that `run` also accepts.
        content, weights: sent to open it.
        patience: factor on the time limits.
    """

    def __init__(
        self,
        isolated: IsolatedProcess,
        content: bytes,
        weights: Mapping[str, ir.TensorProtocol],
        patience: float,
    ) -> None:
        self._process = isolated
        self.patience = patience
        self.content = content
        self.weights = weights
        self.inputs: tuple[TensorSpec, ...]
        self.outputs: tuple[TensorSpec, ...]
        self.overridable: tuple[str, ...]
        self.inputs, self.outputs, self.overridable = isolated.open_here(self)

    def run(self, feeds: Feeds) -> Mapping[str, Any]:
        """Run once; a sequence of tensors is returned as a list.

        Raises:
            ExecutionError: it cannot be run, or the process died while it ran.
            OutOfTimeError: it takes too long.
        """
        return self._process.run(self, feeds)


def _sent(tensor: ir.TensorProtocol) -> MappedWeight | np.ndarray:
    # imported here: the other process imports this module and does not need it
    from trtbuild.model.graph_library import ir

    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.itemsize >= 1:
        dims = tuple(int(size) for size in tensor.shape.numpy())
        return MappedWeight(tensor.path, tensor.offset or 0, tensor.dtype.numpy().str, dims)
    return tensor.numpy()
