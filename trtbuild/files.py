"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "atomic_path",
    "file_digest",
    "make_directory",
    "staged_files",
    "write_bytes",
    "write_text",
]

_PART = 2**20  # bytes that are read at once for a digest


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Return a temporary path beside `path`, and move it there when the block ends well.

    A concurrent reader sees the old file or the new one, never a part. When the block raises,
    Ctrl-C included, nothing is left behind.

    Raises:
        OutputError: the folder is missing or cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


@contextlib.contextmanager
def staged_files(directory: Path) -> Iterator[Path]:
    """Yield an empty folder, and move its files to `directory` when the block ends well.

    They are moved in the order in which they were written: what refers to others, written last,
    never stands there without them. When the block raises, Ctrl-C included, nothing is left behind
    and older files stay as they were.

    Raises:
        OutputError: `directory` cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=directory) as name:
            folder = Path(name)
            yield folder
            for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
                file.replace(directory / file.name)
    except OSError as error:
        raise OutputError(f"cannot write into '{directory}': {error.strerror or error}.") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def make_directory(path: Path) -> Path:
    """Make the folder `path`, and its parents, and check that files can be made in it.

    Raises:
        OutputError: it cannot be made or written, or it is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder '{path}': {error.strerror}. Choose another with -o."
        ) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as ``sha256:`` and 64 hexadecimal digits."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while part := stream.read(_PART):
            digest.update(part)
        return "sha256:" + digest.hexdigest()
