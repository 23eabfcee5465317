"""A command works in a process of its own, so that somebody is left to say why it died.

The processor refuses the lowest whole number by -1, which networks may divide, and the system ends a
process that reads behind the end of a mapped file, or when memory runs out. None of it can be caught where
it happens. The process that was started therefore forks, waits, and ends as the other one does; that costs
milliseconds, as nothing has been imported yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from trtbuild.cli.failure import Failure, complain
from trtbuild.whereabouts import last_words, share

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["go_on_apart"]

# What CUDA loads into the programs that NVIDIA's profilers start; they do not follow a fork.
_PROFILED = "CUDA_INJECTION64_PATH"

# Signals by which the system ends a process for what it did, and what that was.
_DEATHS = {
    "SIGFPE": "the lowest of all whole numbers was divided by -1, or one by zero; look at what the "
    "network divides (Div, Mod) and at what it is fed",
    "SIGBUS": "a file became shorter while it was read, or a disk is full; let nobody write what is read",
    "SIGSEGV": "a native library read or wrote memory that is not its own; with PYTHONFAULTHANDLER=1 "
    "Python says where",
    "SIGABRT": "a native library gave up; with PYTHONFAULTHANDLER=1 Python says where",
    "SIGILL": "a native library was made for another processor",
    "SIGXCPU": "it used more of the processor's time than `ulimit -t` allows",
    "SIGKILL": "another process did so, or the system did for want of memory; use fewer --workers or samples",
}
# With these a command only speaks, and is to do so at once.
_WORDS_ALONE = ("--help", "--version", "completion", "doctor", "init")
_OF_INPUT = ("SIGFPE", "SIGBUS")
_OF_LIBRARIES = ("SIGSEGV", "SIGABRT", "SIGILL")
WRONG_INPUT, BUG = 2, 4

# The same Ctrl-C may come twice, from the terminal (or `timeout`) and through the parent.
_ONE_KEY_PRESS = 0.3  # seconds
_PR_SET_PDEATHSIG = 1
_MOST_TOOLS = 6  # that `sys.monitoring` takes

# Ends what is left of a progress bar, and shows the cursor that bars hide.
_AFTER_A_BAR = b"\r\x1b[2K\x1b[?25h"


def go_on_apart() -> None:
    """Return in a process of its own; the one that called ends when that does, and as it does.

    Where the system cannot, under a debugger and under a profiler, return in the process that called.
    """
    if not _can_part():
        return
    share()
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # nohup has one ignored, and a shell the Ctrl-C of its jobs in the background
    passed_on = {one for one in ends if signal.getsignal(one) != signal.SIG_IGN}
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # the end of a process would not be told
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:  # no more processes are allowed
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    if child:
        _end_as(child, passed_on)
    _end_with(parent)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _Interrupted())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _can_part() -> bool:
    works = len(sys.argv) > 1 and not any(word in _WORDS_ALONE for word in sys.argv[1:])
    return works and sys.platform == "linux" and not _is_watched() and _is_alone()


def _is_watched() -> bool:
    """Whether a debugger, a profiler or a measurement of coverage is at work."""
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12 has it
    return (
        sys.gettrace() is not None
        or sys.getprofile() is not None
        or _PROFILED in os.environ
        or (monitoring is not None and any(map(monitoring.get_tool, range(_MOST_TOOLS))))
    )


def _is_alone() -> bool:
    """Whether there is one thread: those of Python, CUDA and OpenMP do not survive a fork."""
    try:
        return sum(1 for _ in os.scandir("/proc/self/task")) == 1
    except OSError:
        return False


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent is."""
    import ctypes  # here: help does without

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has been already
        os._exit(1)


class _Interrupted:
    """Raises KeyboardInterrupt once for each Ctrl-C."""

    def __init__(self) -> None:
        self._last = -_ONE_KEY_PRESS

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        if now - self._last > _ONE_KEY_PRESS:
            self._last = now
            raise KeyboardInterrupt


def _end_as(child: int, passed_on: set[signal.Signals]) -> NoReturn:
    """Wait for the end of `child`, and end likewise; what it died of is said."""
    status, asked = _waited(child, passed_on)
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    code = 128 + number
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if os.isatty(2):
        with contextlib.suppress(OSError):
            os.write(2, _AFTER_A_BAR)
    if asked:  # a native library that is interrupted while it is loaded may die of it
        code = 128 + asked
        if asked != number:
            complain(f"asked to end by {signal.Signals(asked).name}, and ended by {name}.")
    else:
        code = _said(name, code)
    os._exit(code)


def _waited(child: int, passed_on: set[signal.Signals]) -> tuple[int, int]:
    """Pass on the signals that only this process gets; how `child` ended, and the last one or 0."""
    asked = 0
    while True:
        told = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        if told.si_signo == signal.SIGCHLD:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return status, asked
            continue
        asked = told.si_signo
        # a terminal's Ctrl-C goes to all of its job; its end may go to the first process alone
        if told.si_code <= 0 or asked != signal.SIGINT:
            os.kill(child, asked)


def _said(name: str, code: int) -> int:
    """Say what the other process died of, and return the exit code."""
    at = last_words()
    while_at = f", while ONNX Runtime {at}" if at else ""
    if name in _OF_INPUT or (at and name in _OF_LIBRARIES):
        code = WRONG_INPUT
    elif name in _OF_LIBRARIES:
        code = BUG
    why = _DEATHS.get(name, "another process did so")
    text = f"the system ended trtbuild by {name}{while_at}: {why}."
    failure = Failure("ExecutionError" if at else "Died", text, code)
    return failure.tell(as_json="--json" in sys.argv)
