"""Runs a command in a separate process, so that the first process can report why it died.

The processor refuses to divide the lowest integer by -1, which networks may do, and the system kills a
process that accesses a mapped file beyond its end, or when memory runs out. A process cannot catch this
itself. So the process that was started forks, waits, and ends as its child does. That costs milliseconds,
because nothing has been imported yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from trtbuild.cli.failure import BUG, WRONG_INPUT, Failure, complain
from trtbuild.whereabouts import last_words, share

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["go_on_apart"]

# CUDA sets this in programs that NVIDIA's profilers start; the profilers do not follow a fork.
_PROFILED = "CUDA_INJECTION64_PATH"

# Signals by which the system ends a process, and the usual cause.
_DEATHS = {
    "SIGFPE": "an integer was divided by zero, or the smallest integer by -1; check the Div and Mod "
    "nodes of the network, and its input data",
    "SIGBUS": "a file was truncated while it was read, or a disk is full; do not write to files that are "
    "being read",
    "SIGSEGV": "a native library accessed invalid memory; with PYTHONFAULTHANDLER=1 Python says where",
    "SIGABRT": "a native library aborted; with PYTHONFAULTHANDLER=1 Python says where",
    "SIGILL": "a native library was built for another processor",
    "SIGXCPU": "it used more CPU time than `ulimit -t` allows",
    "SIGKILL": "another process did so, or the system did because memory ran out; use fewer --workers or "
    "samples",
}
# These commands only print, and should do so at once.
_WORDS_ALONE = ("--help", "--version", "completion", "doctor", "init")
_OF_INPUT = ("SIGFPE", "SIGBUS")
_OF_LIBRARIES = ("SIGSEGV", "SIGABRT", "SIGILL")

# One Ctrl-C may arrive twice: from the terminal (or `timeout`), and passed on by the parent.
_ONE_KEY_PRESS = 0.3  # seconds
_PR_SET_PDEATHSIG = 1
_MOST_TOOLS = 6  # that `sys.monitoring` supports

# Clears the rest of a progress bar, and shows the cursor that bars hide.
_AFTER_A_BAR = b"\r\x1b[2K\x1b[?25h"


def go_on_apart() -> None:
    """Fork and return in the child; the parent waits for the child and ends as the child does.

    If the system cannot fork, under a debugger or under a profiler, return in the calling process.
    """
    if not _can_part():
        return
    share()
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # nohup ignores SIGHUP, and a shell ignores Ctrl-C for background jobs
    passed_on = {one for one in ends if signal.getsignal(one) != signal.SIG_IGN}
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # else the child's end is not reported
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
    """Whether a debugger, a profiler or a coverage tool is active."""
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    return (
        sys.gettrace() is not None
        or sys.getprofile() is not None
        or _PROFILED in os.environ
        or (monitoring is not None and any(map(monitoring.get_tool, range(_MOST_TOOLS))))
    )


def _is_alone() -> bool:
    """Whether there is only one thread: threads of Python, CUDA and OpenMP do not survive a fork."""
    try:
        return sum(1 for _ in os.scandir("/proc/self/task")) == 1
    except OSError:
        return False


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends."""
    import ctypes  # imported here: help does not need it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has ended already
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
    """Wait for the end of `child`, end in the same way, and report the cause of a death."""
    status, asked = _waited(child, passed_on)
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    code = 128 + number
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if os.isatty(2):
        with contextlib.suppress(OSError):
            os.write(2, _AFTER_A_BAR)
    if asked:  # a native library that is interrupted while it loads may crash
        code = 128 + asked
        if asked != number:
            complain(f"asked to end by {signal.Signals(asked).name}, and ended by {name}.")
    else:
        code = _said(name, code)
    os._exit(code)


def _waited(child: int, passed_on: set[signal.Signals]) -> tuple[int, int]:
    """Pass on signals that only this process gets; return how `child` ended, and the last signal or 0."""
    asked = 0
    while True:
        told = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        if told.si_signo == signal.SIGCHLD:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return status, asked
            continue
        asked = told.si_signo
        # Ctrl-C in a terminal goes to the whole job; other signals may go to the first process only
        if told.si_code <= 0 or asked != signal.SIGINT:
            os.kill(child, asked)


def _said(name: str, code: int) -> int:
    """Report the cause of the child's death, and return the exit code."""
    at = last_words()
    while_at = f", while {at}" if at else ""
    if name in _OF_INPUT or (at and name in _OF_LIBRARIES):
        code = WRONG_INPUT
    elif name in _OF_LIBRARIES:
        code = BUG
    why = _DEATHS.get(name, "another process did so")
    text = f"the system ended trtbuild by {name}{while_at}: {why}."
    failure = Failure("ExecutionError" if at else "Died", text, code)
    return failure.tell(as_json="--json" in sys.argv)
