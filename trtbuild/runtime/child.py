"""Processes of our own, started beside this one and spoken to through pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

__all__ = ["end", "how_it_ended", "start_module"]

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

# Before anything is imported: starts the process anew where the system put its memory at random places
# and does not have to (personality(2): 0xFFFFFFFF asks; ADDR_NO_RANDOMIZE stays with a process).
_AT_FIXED_PLACES = """
import ctypes, os, sys
personality, fixed = ctypes.CDLL(None).personality, 0x0040000
now = personality(0xFFFFFFFF)
if now >= 0 and not now & fixed and personality(now | fixed) >= 0 and personality(0xFFFFFFFF) & fixed:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
"""


def start_module(
    module: str,
    errors: int | IO[bytes],
    folder: Path | None = None,
    *,
    alike: bool = False,
    one_thread: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a module of ours in this Python, which finds all modules that this process does.

    NVIDIA's compilers number what they make in the order of addresses (seen of TensorRT for RTX 1.7.1), so
    the bytes of a plan depend on them. `alike` fixes the seed of Python's hashes and, on Linux, where the
    system puts memory; where that is not allowed, such as by the default seccomp profile of Docker, memory
    stays where it is.

    Args:
        module: dotted name of what is run.
        errors: what its standard error goes to, as `subprocess.Popen` takes it.
        folder: it works in; None for this process's.
        alike: whether its memory is to be laid out as in every run.
        one_thread: whether NumPy's products run on one thread; to start others is a quarter of its import.
    """
    changes = {"PYTHONHASHSEED": "0"} if alike else {}
    if one_thread:
        changes["OPENBLAS_NUM_THREADS"] = "1"
    places = [str(Path(place).absolute()) for place in sys.path]
    code = _AT_FIXED_PLACES + _RUN if alike and sys.platform == "linux" else _RUN
    return subprocess.Popen(
        [sys.executable, "-c", code, module, _OURS, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder,
        env={**os.environ, **changes},
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
