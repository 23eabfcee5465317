"""Processes of our own, started beside this one and spoken to through pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO

__all__ = ["end", "how_it_ended", "start_module"]


def start_module(module: str, errors: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a module of ours in this Python with this process's import path.

    Args:
        module: dotted name of what is run.
        errors: what its standard error goes to, as `subprocess.Popen` takes it.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that `start_module` started, wait for its end, and close the pipes."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def how_it_ended(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, as a few words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # the system has more signals than Python has names
        return f"signal {-code}"
