"""This machine: its CPUs, its system, the installed packages. `runtime.cuda` knows its GPUs."""

from __future__ import annotations

import functools
import os
import platform
from importlib.util import find_spec
from pathlib import Path

__all__ = [
    "cpuinfo",
    "is_importable",
    "memory_bytes",
    "multiplies_exactly",
    "package_versions",
    "processor_name",
    "system_name",
    "usable_cpus",
]


def usable_cpus() -> int:
    """Return how many logical CPUs this process may use; all of them if the system sets no limit."""
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the bytes of this machine's memory; 2^62 if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # no such function on Windows
        return 2**62


def cpuinfo(field: str) -> list[str]:
    """Return a field of Linux's cpuinfo (``model name``, ``flags``), a text for each CPU; else nothing."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for key, _, value in pairs if key.strip() == field]


@functools.cache
def multiplies_exactly() -> bool:
    """Return whether this processor sums uint8 x int8 products without saturating at 16 bits.

    x86 does so only with VNNI; otherwise ONNX Runtime has exact kernels on request, slower by half.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return any("vnni" in flags for flags in cpuinfo("flags"))


def processor_name() -> str:
    """Return the model name of the CPU, or its machine type if the system does not give one."""
    return next(iter(cpuinfo("model name")), "") or platform.processor() or platform.machine()


def system_name() -> str:
    """Return operating system and machine type, such as ``Linux x86_64``."""
    return f"{platform.system()} {platform.machine()}"


def package_versions(*packages: str) -> dict[str, str]:
    """Return name -> version for the installed ones of `packages` (names as for pip)."""
    # imported here: it takes 20 ms to load
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def is_importable(module: str) -> bool:
    """Return whether a module exists, without loading it, though its parent packages are loaded.

    A folder of that name without ``__init__.py``, such as a folder of results in the working directory, does
    not count, although Python could import it.
    """
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # raised by a parent package, or by a fake module
        return False
    return found is not None and found.origin is not None
