"""Processes of our own, started beside this one and spoken to through pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

__all__ = ["end", "how_it_ended", "start_alike", "start_module"]

# Where this package lies.
_OURS = str(Path(__file__).resolve().parents[2])

# Of personality(2): ask only; do not put memory at random places.
_ASK, _ADDR_NO_RANDOMIZE = 0xFFFFFFFF, 0x0040000


def start_module(
    module: str, errors: int | IO[bytes], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a module of ours in this Python with this process's import path.

    Args:
        module: dotted name of what is run.
        errors: what its standard error goes to, as `subprocess.Popen` takes it.
        folder: it works in; None for this process's.
    """
    places = [str(Path(place).absolute()) for place in sys.path if place]
    path = os.pathsep.join([*places, _OURS])
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
    )


def start_alike(module: str) -> None:
    """Run a module of ours, which this process was started for, anew with memory laid out as in every run.

    NVIDIA's compilers number what they make in the order of addresses (seen of TensorRT for RTX 1.7.1), so
    the bytes of a plan depend on them. Fixed are the seed of Python's hashes and, on Linux, where the system
    puts memory (`personality(2)`, ADDR_NO_RANDOMIZE); where that is not allowed, such as by the default
    seccomp profile of Docker, the process stays as it is. Call it before standard input is read.
    """
    if os.environ.get("PYTHONHASHSEED") == "0" or sys.platform != "linux":
        return
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    now = system.personality(_ASK)
    if now < 0 or system.personality(now | _ADDR_NO_RANDOMIZE) < 0:
        return
    places = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p != _OURS]
    path = os.pathsep.join([*places, _OURS])
    os.environ |= {"PYTHONHASHSEED": "0", "PYTHONPATH": path}
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - this process, anew


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
