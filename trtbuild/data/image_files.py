"""Finds image files: those below a folder, and those that a text file lists."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trtbuild.data.skipped import HIDDEN
from trtbuild.errors import DataError
from trtbuild.files import content_of, lines_of
from trtbuild.visible import as_written, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IMAGE_SUFFIXES", "LIST_SUFFIXES", "Found", "images_below", "listed_images", "why_not"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})


@dataclass(frozen=True)
class Found:
    """The images, sorted by path, and the names of all other files, each with the reason."""

    images: tuple[Path, ...]
    others: tuple[tuple[str, str], ...]


def why_not(name: str) -> str:
    """Return why a file of this name is not an image; empty if it is one."""
    path = PurePosixPath(name)
    if any(part.startswith(".") and part not in (".", "..") for part in path.parts):
        return HIDDEN
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return ""
    return f"the suffix {visible(suffix)} is not read" if suffix else "no suffix"


def images_below(folder: Path) -> Found:
    """Return the images below `folder`, also through links to folders, but not hidden ones.

    Raises:
        DataError: a folder cannot be read.
    """
    images, others = [], []
    for path in _files_below(folder, (folder.resolve(),)):
        name = path.relative_to(folder).as_posix()
        why = why_not(name)
        if not why and not path.is_file():
            why = "a link to nothing" if path.is_symlink() else "no regular file"
        if why:
            others.append((visible(name), why))
        else:
            images.append(path)
    return Found(tuple(sorted(images)), tuple(sorted(others)))


def _files_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield every file. A hidden folder stands for its files; links to a parent are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder '{visible(folder)}': {error.strerror}.") from error
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or not _is_folder(entry):
            yield path
            continue
        real = path.resolve()
        if real not in above:
            yield from _files_below(path, (*above, real))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def listed_images(path: Path) -> tuple[tuple[str, Path], ...]:
    """Return the names in the lines of a text file, and their files, relative to it or to the current folder.

    A number behind a name, as in lists that give the classes too (``a.png 3``), is not part of the name.
    A name may also stand as trtbuild shows it, with escapes of invisible characters.

    Raises:
        DataError: the file cannot be read, names nothing, or names a missing file.
    """
    try:
        text = content_of(path).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read the list '{visible(path)}': {error.strerror}.") from error
    found = []
    for number, whole in enumerate(lines_of(text), 1):
        line = whole.strip()
        if not line or line.startswith("#"):
            continue
        given = (line, re.sub(r"[\s,]+\+?\d+$", "", line))
        names = (*given, *map(as_written, given))
        places = ((name, place) for name in names for place in (path.parent / name, Path(name)))
        entry = next(((name, place) for name, place in places if _is_file(place)), None)
        if entry is None:
            raise DataError(
                f"line {number} of the list '{visible(path)}' names '{visible(line)}', which does not exist; "
                "a list has the path of one image in every line."
            )
        found.append(entry)
    if not found:
        raise DataError(f"the list '{visible(path)}' names no image.")
    return tuple(found)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
