"""Writes files completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.errors import InputError, OutputError
from trtbuild.temporaries import building_folder, is_ours, locked, owned, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

__all__ = [
    "atomic_path",
    "check_is_file",
    "content_of",
    "data_beside",
    "file_digest",
    "flush",
    "flushed_meanwhile",
    "is_named_in_utf8",
    "lines_of",
    "make_directory",
    "place_file",
    "staged_files",
    "write_bytes",
    "write_in_parts",
    "write_text",
]

_PART = 2**20  # bytes per read for a digest, and per write
# Characters of a file's name to use in its temporary name: a name has at most 255 bytes.
_NAMED = 30
# Reading the umask means setting another one for a moment, for all threads.
_ASKING = threading.Lock()
_BETWEEN_FLUSHES = 0.05  # seconds


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move that file to `path` when the block succeeds.

    A concurrent reader sees the old file or the new one, never a part, even after a power failure. If the
    block raises an error, or Ctrl-C stops it, nothing is left behind. If `path` is a symbolic link, its
    target is written; a device or FIFO receives the finished content, and stays what it is.

    Raises:
        OutputError: the folder is missing or cannot be written, or `path` is a folder.
    """
    target = Path(os.path.realpath(path))
    try:
        _check_no_folder(target)
        folder = None if _is_special(target) else target.parent
        kind = f".{target.name[:_NAMED]}."
        if folder is not None:
            sweep(folder, kind)
        suffix = target.suffix[:_NAMED]
        handle, name = tempfile.mkstemp(prefix=owned(kind), suffix=suffix, dir=folder)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        with locked(temporary):
            yield temporary
            if folder is None:
                _pour(temporary, target)
            else:
                temporary.chmod(0o666 & ~_umask())
                _flush_for_good(temporary, folder)
                temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_no_folder(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder; name a file")
    if target.is_symlink() and target == Path(os.path.realpath(target)):
        raise OSError(errno.ELOOP, "it is a link to itself")


def _is_special(target: Path) -> bool:
    """Whether `target` exists and is not a regular file: a device, a FIFO, a socket."""
    return target.exists() and not target.is_file()


def _pour(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write)


def flush(path: Path) -> None:
    """Wait until the content of `path` is on disk, so that a rename cannot come before it.

    Raises:
        OSError: the disk has no room for it, or fails.
    """
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


@contextlib.contextmanager
def flushed_meanwhile(folder: Path) -> Iterator[None]:
    """Flush the files in `folder` repeatedly while the block writes them, so that the last flush is short.

    In a folder of our own, this does nothing: what leaves it is flushed then.

    Raises:
        OSError: the disk has no room for one, or fails; a later flush of the same file would not tell.
    """
    from concurrent.futures import ThreadPoolExecutor  # imported here: few commands need it

    if is_ours(folder.parent):
        yield
        return
    done = threading.Event()

    def work() -> None:
        while not done.wait(_BETWEEN_FLUSHES):
            with contextlib.suppress(FileNotFoundError):  # one has been moved
                for file in filter(Path.is_file, folder.rglob("*")):
                    flush(file)

    with ThreadPoolExecutor(1) as beside:
        try:  # Ctrl-C may come as soon as the thread runs, and it has to end then
            flushing = beside.submit(work)
            yield
        finally:
            done.set()
    flushing.result()


def _flush_for_good(file: Path, directory: Path) -> None:
    """Flush a file that is moved to `directory`; what leaves a folder of our own again is flushed then."""
    if not is_ours(directory):
        flush(file)


def _umask() -> int:
    with _ASKING:  # otherwise another thread could read the 0, and later restore it
        value = os.umask(0)
        os.umask(value)
    return value


@contextlib.contextmanager
def staged_files(directory: Path, last: str = "") -> Iterator[Path]:
    """Yield an empty folder, and move its files to `directory` when the block succeeds.

    If the block raises an error, or Ctrl-C stops it, nothing is left behind and older files stay unchanged;
    if a move fails, earlier moves are undone. Folders of killed builds of this machine are removed.

    Args:
        directory: existing folder for the files.
        last: name of the file that refers to the others. It is moved last, so it never exists
            without them; modification times cannot show the order, since they may be equal.

    Raises:
        OutputError: `directory` cannot be written.
    """
    try:
        sweep(directory)
        with building_folder(directory) as folder:
            yield folder
            # in reverse order, so that a network's weights ("n.onnx.data") are there before the network
            files = sorted(folder.iterdir(), reverse=True)
            files.sort(key=lambda file: file.name == last)
            for file in files:
                _check_no_folder(directory / file.name)
                _flush_for_good(file, directory)
            # so two builds into one folder never mix their files
            with building_folder(directory) as aside, _locked_for_moves(directory):
                _move_all(files, directory, aside)
    except OSError as error:
        where = f" ('{Path(error.filename).name}')" if error.filename else ""
        raise OutputError(
            f"cannot write into '{directory}'{where}: {error.strerror or error}."
        ) from error


def _move_all(files: Sequence[Path], directory: Path, aside: Path) -> None:
    """Move `files` into `directory`, one after the other; on an error, undo all moves.

    Args:
        files: the files, all in one folder.
        directory: target folder.
        aside: an empty folder beside them; keeps replaced files until all moves are done.
    """
    with contextlib.ExitStack() as undo:
        for file in files:
            target = Path(os.path.realpath(directory / file.name))
            if target.exists():
                kept = aside / file.name
                _keep(target, kept)
                undo.callback(_move, kept, target)
            else:
                undo.callback(target.unlink, missing_ok=True)
            _move(file, target)
        undo.pop_all()


def _move(file: Path, target: Path) -> None:
    try:
        file.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # EXDEV: a symbolic link to another file system
            raise
        with atomic_path(target) as temporary:
            shutil.copyfile(file, temporary)


def _keep(target: Path, kept: Path) -> None:
    """Keep `target` under a second name, without moving it."""
    try:
        kept.hardlink_to(target)
    except OSError:  # no hard links, or another file system behind a symbolic link
        shutil.copy2(target, kept)


def place_file(file: Path, target: Path) -> None:
    """Move a finished file to `target` in one step; readers see the old file or the new one.

    Raises:
        OutputError: `target` is a folder or cannot be written.
    """
    try:
        _check_no_folder(target)
        flush(file)
        _move(file, target)
    except OSError as error:
        raise OutputError(f"cannot write '{target}': {error.strerror or error}.") from error


def _locked_for_moves(directory: Path) -> AbstractContextManager[None]:
    """Lock `directory`, unless it is a folder of ours (weights go there, too), which is locked already."""
    return contextlib.nullcontext() if is_ours(directory) else locked(directory)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_in_parts(file: BinaryIO, content: memoryview) -> None:
    """Write bytes a megabyte at a time.

    Linux may keep the bytes of one write, up to some megabytes, in one contiguous piece of its page
    cache. On a virtual machine whose host reclaims free memory in units of 2 MB, writes into such
    pieces took eight times as long as others.
    """
    for start in range(0, content.nbytes, _PART):
        file.write(content[start : start + _PART])


def make_directory(path: Path) -> Path:
    """Create the folder `path` and its parents, and check that files can be created in it.

    Raises:
        OutputError: it cannot be created or written, or it is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder '{path}': {error.strerror}. Choose another with -o."
        ) from error


def check_is_file(what: str, path: Path) -> None:
    """Check that `path` is a file; `what` is its name in the error.

    Raises:
        InputError: it does not exist, or is not a file.
    """
    if path.is_dir():
        raise InputError(f"{what} '{path}' is a folder; give the path of a file.")
    if not path.is_file():
        raise InputError(f"{what} '{path}' does not exist; give the path of a file.")


def data_beside(path: Path) -> Path:
    """Return the path for the weights of the network file `path`, if they are stored separately."""
    return path.with_name(f"{path.name}.data")


def is_named_in_utf8(name: str) -> bool:
    """Return whether a file's name is valid text; ONNX and ONNX Runtime cannot name others, as on Linux."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def content_of(path: Path) -> bytes:
    """Return all bytes of a file, or of a FIFO.

    Raises:
        OSError: it cannot be read, or is a device, which may have no end.
    """
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.ENXIO, "it is a device, not a file", str(path))
    return path.read_bytes()


def lines_of(text: str) -> Iterator[str]:
    r"""Yield the lines of a text, each ending in ``\n``, whichever of the three common ends it has.

    `str.splitlines` also cuts at characters that may stand in a file's name, such as U+2028.
    """
    yield from io.StringIO(text, newline=None)


def file_digest(path: Path, given_up: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file's bytes, as ``sha256:`` and 64 hexadecimal digits.

    Args:
        path: path of the file.
        given_up: returns whether to stop early; the result is meaningless then.
    """
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while not given_up() and (part := stream.read(_PART)):
            digest.update(part)
        return "sha256:" + digest.hexdigest()
