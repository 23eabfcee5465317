"""The worker of `trtbuild.backends.tensorrt.apart`: run as a module, it does one job with NVIDIA's library.

Standard input gives the backend whose library to load and then, perhaps much later, the job. Messages go to
the original standard output. Everything is pickled:

    ("progress", stage, done, total)    progress of the job
    ("log", logger, level, text)        a line of our own for the log
    ("said", text)                      an error of TensorRT's, in case no answer follows
    ("batches",)                        starts a pass over the calibration data
    ("batch",)                          asks for its next batch on standard input, None after the last
    ("count", inputs)                   asks how often each value of these inputs occurs in the samples
    ("ok", result), ("error", error)    the end

The process ends when its parent does, since standard input then closes. The parent handles Ctrl-C and ends
this process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from calibrators.errors import CalibratorError
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.errors import MissingError, TrtbuildError
from trtbuild.runtime.tensorrt.logger import Log, make_logger
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from trtbuild.backends.tensorrt.builder import Blueprint, Built
    from trtbuild.backends.tensorrt.refusals import Refusals
    from trtbuild.backends.tensorrt.shape_inputs import Counts
    from trtbuild.runtime.session import Feeds

_PRODUCTS = {product.backend: product for product in (TENSORRT, RTX)}


def main() -> None:
    """Do the one job that the parent sends."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = _Parent()
    logging.basicConfig(handlers=[_LogToParent(parent)], level=logging.INFO)
    with contextlib.suppress(MissingError):  # the job raises it again
        installed(parent.product)
    job, *arguments = parent.job()
    jobs: dict[str, Callable[..., Any]] = {"build": _build, "find_refusals": _find_refusals}
    try:
        parent.send("ok", jobs[job](parent, *arguments))
    except (TrtbuildError, CalibratorError) as error:
        parent.send("error", error)
    except Exception:  # noqa: BLE001  the parent shows our own bug with its traceback
        parent.send(
            "error", RuntimeError(f"in the process of the build:\n{traceback.format_exc()}")
        )


class _Parent:
    """The process that started this one."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # output that libraries print must not mix with the messages
        self._lock = threading.Lock()
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.product = _PRODUCTS[pickle.load(sys.stdin.buffer)]  # noqa: S301 - our parent wrote it

    def job(self) -> tuple[Any, ...]:
        """Wait for the job and return it; a thread receives everything that follows."""
        job: tuple[Any, ...] = pickle.load(sys.stdin.buffer)  # noqa: S301 - our parent wrote it
        threading.Thread(target=self._listen, daemon=True).start()
        return job

    def send(self, *message: Any) -> None:
        """Send a message; threads of TensorRT call this, too, to log and report progress."""
        content = pickle.dumps(message, protocol=5)
        with self._lock:
            self._answers.write(content)
            self._answers.flush()

    def receive(self) -> Any:
        """Return the next message."""
        return self._received.get()

    def batches(self) -> Iterator[Feeds]:
        """Return a pass over the calibration data, which the parent reads; only one at a time."""
        self.send("batches")
        while True:
            self.send("batch")
            feeds = self.receive()
            if feeds is None:
                return
            yield feeds

    def count(self, names: Sequence[str]) -> Counts:
        """Return how often each value of these inputs occurs in the samples, which the parent reads."""
        self.send("count", names)
        found: Counts = self.receive()
        return found

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._received.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - our parent wrote it
        os._exit(1)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Send the progress of a build phase to the parent."""
        self.send("progress", stage, done, total)


class _LogToParent(logging.Handler):
    """Forwards log lines to the parent's loggers."""

    def __init__(self, parent: _Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        self._parent.send("log", record.name, record.levelno, record.getMessage())


class _ErrorsToParent(deque[tuple[str, str]]):
    """A log whose errors go to the parent at once, because the next step may crash the process."""

    def __init__(self, parent: _Parent) -> None:
        super().__init__(maxlen=1)
        self._parent = parent

    def append(self, line: tuple[str, str]) -> None:
        """Send a line if it is an error; keep none."""
        severity, text = line
        if severity in ("INTERNAL_ERROR", "ERROR"):
            self._parent.send("said", text)


def _build(parent: _Parent, blueprint: Blueprint, has_data: bool) -> Built:
    from trtbuild.backends.tensorrt.builder import build_plan  # not needed to parse
    from trtbuild.backends.tensorrt.shape_inputs import BuildData

    tensorrt = installed(parent.product)
    errors = Log(_ErrorsToParent(parent))  # kept: the logger writes into it as long as it lives
    make_logger(tensorrt, errors)
    data = BuildData(parent.batches if has_data else None, parent.count)
    return build_plan(tensorrt, blueprint, data, parent.progress)


def _find_refusals(parent: _Parent, path: Path, plugins: Sequence[Path]) -> Refusals:
    tensorrt = installed(parent.product)
    errors = Log(_ErrorsToParent(parent))  # kept: the logger writes into it as long as it lives
    make_logger(tensorrt, errors)
    return find_refusals(tensorrt, path, plugins)


if __name__ == "__main__":
    main()
