"""Temporary files and folders: named after their process, locked by it, and swept if it was killed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["building_folder", "is_ours", "locked", "owned", "sweep", "temporary_folder"]

_BUILDING = ".building-"
_TEMPORARY = "trtbuild-"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder in the system's temporary folder (``TMPDIR``), and remove it after the block.

    Folders of killed processes of this machine are removed first.

    Raises:
        OSError: it cannot be created.
    """
    directory = Path(tempfile.gettempdir())
    sweep(directory, _TEMPORARY)
    with building_folder(directory, _TEMPORARY) as folder:
        yield folder


@contextlib.contextmanager
def building_folder(directory: Path, kind: str = _BUILDING) -> Iterator[Path]:
    """Yield an empty folder in `directory`, whose name contains its machine and process."""
    # Windows does not remove files that are still mapped
    with tempfile.TemporaryDirectory(
        prefix=owned(kind), dir=directory, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        with locked(folder):
            yield folder


def is_ours(directory: Path) -> bool:
    """Return whether it is a temporary folder of this process, which is deleted in the end."""
    return directory.name.startswith((owned(_BUILDING), owned(_TEMPORARY)))


def owned(kind: str) -> str:
    """Return the prefix of the names of this process's files and folders."""
    return f"{kind}{_machine_name()}-{os.getpid()}-"


def _machine_name() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", platform.node())


def sweep(directory: Path, kind: str = _BUILDING) -> None:
    """Remove files and folders of dead processes of this machine (SIGKILL, out of memory)."""
    prefix = f"{kind}{_machine_name()}-"
    try:
        with os.scandir(directory) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
    except OSError:  # the folder may be writable but not readable
        return
    for path in found:
        process = path.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)) and not _is_locked(path):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the system's lock on `path`, and hold it during the block, if the file system has locks.

    The lock ends with the process. Other containers on this machine see it, but cannot interpret the ids of
    our processes.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # not every file system has locks
            stack.enter_context(_lock(path, wait=True))
        yield


def _is_locked(path: Path) -> bool:
    """Whether a living process holds `path`; False if that is not known."""
    try:
        with _lock(path, wait=False):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock on a file or folder.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
        OSError: there are no locks here, or `path` cannot be read.
    """
    if os.name == "nt":
        yield
        return
    import fcntl  # missing on Windows

    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process on Windows
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process of another user
        return True
    return True
