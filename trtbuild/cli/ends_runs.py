"""Lets Ctrl-C and SIGTERM stop a run of ONNX Runtime that has begun.

Python calls a signal's handler in the main thread only, between two instructions; a run of a large network is
one instruction that may take minutes. Python writes the number of each signal to a file at once
(`signal.set_wakeup_fd`); a thread that reads it tells ONNX Runtime to give up all runs. Then the handler is
called as always.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["runs_end_on_signals"]

_RUNTIME = "trtbuild.runtime.onnxruntime"
_ENDS = frozenset(
    int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# More signals than any command gets.
_AT_ONCE = 64


@contextlib.contextmanager
def runs_end_on_signals() -> Iterator[None]:
    """Stop runs in this process when a signal that ends the command arrives during the block.

    Where the program around has asked for signals itself (an event loop), or on Windows, nothing is done.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
        yield
        return
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writing)  # the watcher reads the end of the file
        watcher.join()
        os.close(reading)
        _let_run(True)


def _watch(reading: int) -> None:
    while numbers := os.read(reading, _AT_ONCE):
        if _ENDS & set(numbers):
            _let_run(False)


def _let_run(may: bool) -> None:
    """Allow or stop runs, if ONNX Runtime is loaded at all."""
    runtime = sys.modules.get(_RUNTIME)
    if runtime is not None:
        runtime.let_run(may)
