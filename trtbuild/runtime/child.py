"""Starts our own child processes, which talk to this one through pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

__all__ = ["end", "how_it_ended", "start_module"]

# Folder that holds this package.
_OURS = str(Path(__file__).resolve().parents[2])

# Runs a module as `python -m` does, with sys.path in this order: our package, Python's own folders, then the
# folders where the parent finds the user's modules, so that a user's json.py, say, cannot replace Python's.
# The current folder is left out (as by PYTHONSAFEPATH, which Python 3.10 does not know).
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

# Runs before any import: restarts the process without address space randomization, if the system allows that
# (personality(2): 0xFFFFFFFF reads it; ADDR_NO_RANDOMIZE survives the restart).
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
    """Start one of our modules in this Python; it finds all modules that this process finds.

    NVIDIA's compilers number what they make in the order of addresses (seen with TensorRT for RTX 1.7.1), so
    the bytes of a plan depend on addresses. `alike` fixes the seed of Python's hashes and, on Linux, the
    memory layout; where that is not allowed, such as by Docker's default seccomp profile, the layout stays
    random.

    Args:
        module: dotted name of the module.
        errors: where its standard error goes, as for `subprocess.Popen`.
        folder: its working folder; None for this process's.
        alike: whether its memory layout is the same in every run.
        one_thread: whether NumPy uses one thread; starting the others takes a quarter of NumPy's import.
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
    """Kill a process of `start_module`, wait until it has ended, and close the pipes."""
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
