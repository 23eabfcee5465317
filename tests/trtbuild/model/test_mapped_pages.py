"""Temporary memory of large networks is returned to the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")

# Makes and frees blocks of a weight's size in turns with small ones, as in opening a session.
SCRIPT = """
import ctypes, sys
from trtbuild.model.mapped_pages import large_blocks_go_back
if sys.argv[1:]:
    large_blocks_go_back()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 16 << 20
def block():
    made = libc.malloc(size)
    ctypes.memset(made, 1, size)
    return made
libc.free(block())
large = [(block(), libc.malloc(1000)) for _ in range(8)]
for one, _ in large[:-1]:
    libc.free(one)
line = next(one for one in open("/proc/self/status") if one.startswith("RssAnon"))
print(int(line.split()[1]) >> 10)
"""


@pytest.mark.skipif(
    not STATUS.is_file() or "glibc" not in platform.libc_ver(),
    reason="needs Linux with glibc",
)
def test_large_blocks_go_back_when_they_are_freed() -> None:
    def held(*words: str) -> int:
        """Return the MiB of memory at the end."""
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # seven blocks of 16 MiB were freed; the rest of two processes differs by less than one of them
    assert held() - held("goes back") > 6 * 16
