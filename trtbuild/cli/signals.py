"""What signals do to a command: those that end it run all clean-up, and stop runs of ONNX Runtime.

Python calls a signal's handler in the main thread only, between two instructions; a run of a large network is
one instruction that may take minutes. Python writes the number of each signal to a file at once
(`signal.set_wakeup_fd`); a thread that reads it tells ONNX Runtime to give up all runs. Then the handler is
called as always.

Processes that are forked meanwhile, such as those of a user's `multiprocessing.Pool`, get none of this: a
pool ends its processes by SIGTERM, and what they wrote to the file would stop the runs of this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Terminated", "runs_end_on_signals", "signals_raised"]

_RUNTIME = "trtbuild.runtime.onnxruntime"
_ENDS = frozenset(
    int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# More signals than any command gets.
_AT_ONCE = 64
# Written in place of a signal's number when no more are read.
_NO_MORE = b"\0"

# Signal -> the handler from before `signals_raised`, while it holds.
_before: dict[int, Any] = {}
# The file that numbers of signals are written to, while `runs_end_on_signals` holds.
_written: list[int] = []


class Terminated(BaseException):
    """Another process wants this one to end. Raised, so that all clean-up runs, as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated` in the block, unless they are ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    _before.update(
        {one: signal.getsignal(one) for one in known if signal.getsignal(one) != signal.SIG_IGN}
    )
    for one in _before:
        signal.signal(one, _end)
    try:
        yield
    finally:
        for one, handler in _before.items():
            signal.signal(one, handler)
        _before.clear()


def _end(number: int, frame: object) -> NoReturn:
    del frame
    for one in _before:
        signal.signal(one, signal.SIG_IGN)  # a second signal must not stop the clean-up
    raise Terminated(number)


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
    _written.append(writing)
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        _written.clear()
        os.write(writing, _NO_MORE)  # closing it is not enough: forked processes may hold it
        watcher.join()
        os.close(writing)
        os.close(reading)
        _let_run(True)


def _watch(reading: int) -> None:
    while _NO_MORE not in (numbers := os.read(reading, _AT_ONCE)):
        if _ENDS & set(numbers):
            _let_run(False)


def _let_run(may: bool) -> None:
    """Allow or stop runs, if ONNX Runtime is loaded at all."""
    runtime = sys.modules.get(_RUNTIME)
    if runtime is not None:
        runtime.let_run(may)


def _let_go() -> None:
    """In a forked process: handle signals as before the command."""
    for one, handler in _before.items():
        signal.signal(one, handler)
    if _written:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
