"""Checks of paths before any work: no output of a command is an input, and every output can be written."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError, OutputError
from trtbuild.files import data_beside, is_named_in_utf8
from trtbuild.model.file_kinds import check_was_fetched
from trtbuild.options.data import FOLDERS
from trtbuild.options.values import names_function, script_of
from trtbuild.plugins import reader_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbuild.options.data import Data, DataRecipe

__all__ = ["Besides", "Inputs", "check_paths", "data_inputs", "is_same_file", "named_inputs"]

# Name of what is read, and its path.
Inputs = tuple[tuple[str, Path], ...]

# Suffixes of the files that are read from a data folder.
_DATA = frozenset(
    {".bmp", ".jpeg", ".jpg", ".npy", ".npz", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_NETWORK = ".onnx"


@dataclass(frozen=True)
class Besides:
    """Files that a command reads and writes in addition to those of its recipe: settings, reports."""

    read: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()


def named_inputs(**places: Data | None) -> Inputs:
    """Return the arguments that are paths: the name in words (from ``the_network``) and the path."""
    return tuple(
        (what.replace("_", " "), found)
        for what, place in places.items()
        if (found := _file_of(place)) is not None
    )


def _file_of(place: Data | None) -> Path | None:
    if isinstance(place, Path):
        return place
    if not isinstance(place, str):
        return None
    reader = reader_of(place)
    if reader is not None:
        return Path(reader[1]) if Path(reader[1]).exists() else None
    return script_of(place) or (None if names_function(place) else Path(place))


def data_inputs(data: DataRecipe) -> Inputs:
    """Return the files and folders of data and labels."""
    return named_inputs(
        the_data=data.data,
        the_data_for_verification=data.verify_data,
        the_file_of_labels=None if str(data.labels) == FOLDERS else data.labels,
    )


def check_paths(
    reads: Inputs,
    writes: Iterable[Path | None],
    besides: Besides | None = None,
    *,
    folder: Path | None = None,
) -> None:
    """Check that no output is an input or another output, and that every output can be written.

    Links are followed, so one file with two names is one file. Nothing is created.

    Args:
        reads: files and folders that are read.
        writes: files that will be written; None for one that was not asked for.
        besides: more of both.
        folder: a folder that will be created, with its parents, if it does not exist.

    Raises:
        InputError: a file to read is a Git LFS pointer: the file itself was not fetched.
        OptionError: an output is an input, or two outputs are one file.
        OutputError: an output cannot be written.
    """
    besides = besides or Besides()
    reads = (*reads, *(("the settings", path) for path in besides.read))
    for what, place in reads:
        check_was_fetched(place, what)
    seen: dict[str, Path] = {}
    for path in (*filter(None, writes), *besides.written):
        real = os.path.realpath(path)
        if real in seen and not _is_special(path):
            raise OptionError(
                f"two files would be written to '{path}'; name another file for one of them."
            )
        seen[real] = path
        if path.suffix == _NETWORK and not is_named_in_utf8(str(path)):
            raise OutputError(
                f"'{path}' is not UTF-8, as the name of a network's file must be; choose another."
            )
        _check_no_input(path, reads)
        _check_writable(path, folder)


def _check_no_input(path: Path, reads: Inputs) -> None:
    if _is_special(path) or path.is_dir():
        return
    weights, exists = data_beside(path), path.exists()
    for what, place in reads:
        if exists and (_is_read_of(path, place) or _is_data_in(path, place)):
            raise OptionError(
                f"'{path}' is {what}, which is read and would be overwritten; name another file."
            )
        if weights.exists() and _is_read_of(weights, place):
            raise OptionError(
                f"'{weights}' belongs to {what}, which is read, and would be overwritten if the weights of "
                f"'{path}' are large; name another file."
            )


def _is_read_of(path: Path, place: Path) -> bool:
    return any(is_same_file(path, file) for file in _files_read(place))


def is_same_file(path: Path | None, other: Path | None) -> bool:
    """Return whether both paths exist and lead to one file."""
    if path is None or other is None:
        return False
    return path.exists() and other.exists() and path.samefile(other)


def _is_data_in(path: Path, place: Path) -> bool:
    """Whether `path` is a file that is read as data from the folder `place`."""
    below = place.is_dir() and place.resolve() in path.resolve().parents
    return below and path.suffix.lower() in _DATA


def _files_read(place: Path) -> Iterator[Path]:
    """The file itself and, for a network, the files with its weights."""
    yield place
    if place.suffix.lower() == _NETWORK and place.is_file():
        from trtbuild.model import weight_files  # imported here: it loads onnx

        yield from weight_files(place)


def _is_special(path: Path) -> bool:
    """Whether `path` is a device, a FIFO or a socket: it accepts several files, and none is lost."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _check_writable(path: Path, made: Path | None) -> None:
    """Check that `path` can be created in its folder, or in an existing parent of a folder to be created."""
    if path.is_dir():
        raise OutputError(f"cannot write '{path}': it is a folder.")
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise OutputError(f"cannot write '{path}': Permission denied.")
        return
    if Path(os.path.realpath(path)).is_symlink():
        raise OutputError(f"cannot write '{path}': it is a link to itself.")
    folder = Path(os.path.realpath(path)).parent
    real = None if made is None else Path(os.path.realpath(made))
    if real is not None and folder in (real, *real.parents):  # it will be created
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write '{path}': '{folder}' is not a writable folder.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': '{folder}' is not a writable folder ({error.strerror})."
        ) from error
