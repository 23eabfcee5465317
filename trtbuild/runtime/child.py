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

# Runs a module as `python -m` does, with its places in this order: ours, Python's own, and at the end those
# where the parent finds the user's modules, so that none of these, called json.py perhaps, stands for one of
# Python's. The current folder is no place (as with PYTHONSAFEPATH, which Python 3.10 does not know).
_RUN = """
import sys
module, ours, *others = sys.argv[1:]
places = [place for place in sys.path if place]
if ours not in places:
    places.insert(0, ours)
sys.path = [*places, *(place for place in others if place not in places)]
import runpy
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

# Of personality(2): ask only; do not put memory at random places.
_ASK, _ADDR_NO_RANDOMIZE = 0xFFFFFFFF, 0x0040000


def start_module(
    module: str, errors: int | IO[bytes], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a module of ours in this Python, which finds all modules that this process does.

    Args:
        module: dotted name of what is run.
        errors: what its standard error goes to, as `subprocess.Popen` takes it.
        folder: it works in; None for this process's.
    """
    places = [str(Path(place).absolute()) for place in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, module, _OURS, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder,
    )


def start_alike() -> None:
    """Run this process, which `start_module` started, anew with memory laid out as in every run.

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
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this process, anew


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
