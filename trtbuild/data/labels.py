"""Class labels from a file or class folders: matched by name or by position, never guessed."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trtbuild.data.image_files import LIST_SUFFIXES
from trtbuild.data.json_labels import JSON_SUFFIXES, json_records
from trtbuild.data.samples import SourceOf
from trtbuild.data.stored import StoredArray, stored_arrays
from trtbuild.errors import DataError
from trtbuild.files import content_of, lines_of
from trtbuild.options.data import FOLDERS
from trtbuild.visible import visible
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from trtbuild.data.samples import Sample, Source

__all__ = ["ClassFolders", "LabelledSource", "label_arrays", "read_labels"]

_log = logging.getLogger(__name__)

# Common names of the column with the file.
_FILE_COLUMNS = frozenset({"file", "filename", "file_name", "filepath", "image", "name", "path"})
_LABEL_COLUMN = "label"
_ARRAY_NAMES = ("y", "labels", "label")
_LINE = re.compile(r"(?:(?P<name>.*[^\s,])[\s,]+)?(?P<label>\S+?)")
_NUMBER = re.compile(r"\+?\d+")
_MOST_DIGITS = 300
_MOST_SHOWN = 100  # characters of a line; another kind of file may be one long line


@dataclass(frozen=True)
class LabelledSource(SourceOf):
    """A source whose samples get their labels from a file: by name, or by position."""

    by_name: Mapping[str, int]
    by_position: Sequence[int]

    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass.

        Raises:
            DataError: a sample has no label or more than one, two samples share a label's entry, or there
                are more labels than samples.
        """
        if self.by_name:
            yield from self._named()
            return
        count = 0
        for sample in self.source:
            if count < len(self.by_position):
                yield replace(sample, label=self.by_position[count])
            count += 1
            if count > len(self.by_position):
                break
        if count != len(self.by_position):
            more = "more samples" if count > len(self.by_position) else counted(count, "sample")
            raise DataError(
                f"{counted(len(self.by_position), 'label')} for '{self.description}', which has {more}: give "
                "a label for each sample in its order, or the columns 'file' and 'label'."
            )

    def _named(self) -> Iterator[Sample]:
        entries = _by_base_name(self.by_name)
        taken: dict[str, str] = {}
        for sample in self.source:
            entry = _entry_for(sample.name, self.by_name, entries)
            other = taken.setdefault(entry, sample.name)
            if other != sample.name:
                raise DataError(
                    f"the label of '{entry}' fits two samples, '{other}' and '{sample.name}'; write their "
                    "paths below the data's folder into the labels."
                )
            yield replace(sample, label=self.by_name[entry])


def _by_base_name(names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[PurePosixPath(name).name].append(name)
    return found


def _entry_for(name: str, names: Mapping[str, int], entries: Mapping[str, Sequence[str]]) -> str:
    """The entry with the path `name`; or the only entry whose path ends in `name`, or that `name` ends in."""
    key = _key(name)
    if key in names:
        return key
    fitting = [
        entry
        for entry in entries.get(PurePosixPath(key).name, ())
        if f"/{entry}".endswith(f"/{key}") or f"/{key}".endswith(f"/{entry}")
    ]
    if not fitting:
        raise DataError(f"the labels have no entry for the image '{name}'.")
    if len(fitting) > 1:
        raise DataError(
            f"the labels have several entries for the image '{name}': '{fitting[0]}' and '{fitting[1]}'; "
            "write its path below the data's folder."
        )
    return fitting[0]


def read_labels(path: Path, source: Source) -> Source:
    """Return the samples of `source`, each with its label.

    A CSV file has a header with the columns ``file`` and ``label``, or only ``label`` in the order of
    the samples. A text file (``.txt``, ``.lst``, ``.list``) has ``name label`` in every line, or only
    ``label``. A JSON file is an object of names and labels, or an array; a ``.jsonl`` file has a value in
    every line; these are objects with ``file`` and ``label``, or labels. An ``.npz`` file has an array
    ``y``, ``labels`` or ``label``, or only one vector of integers.
    The word ``folders`` stands for the data's own class folders, and a folder for its subfolders; the class
    is the folder's position when sorted by name.

    Raises:
        DataError: the file is missing, has another form, or is ambiguous.
    """
    if str(path) == FOLDERS or path.is_dir():
        return ClassFolders(source, None if str(path) == FOLDERS else path)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        return LabelledSource(source, {}, _array_labels(path))
    text = _text(path)
    if suffix in LIST_SUFFIXES:
        named = _text_labels(text, path)
    elif suffix in JSON_SUFFIXES:
        named = _json_labels(text, suffix, path)
    else:
        named = _table_labels(text, path)
    if named and named[0][0] is None:
        return LabelledSource(source, {}, [label for _, label in named])
    return LabelledSource(source, _unique(named, path), [])


def _text(path: Path) -> str:
    try:
        content = content_of(path)
        return content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except OSError as error:
        raise DataError(f"cannot read the labels '{visible(path)}': {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the labels '{visible(path)}' are not UTF-8 text: {error}.") from error


def _unique(named: Iterable[tuple[str | None, int]], path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for name, label in named:
        key = _key(name or "")
        if labels.setdefault(key, label) != label:
            raise DataError(
                f"the labels '{visible(path)}' give '{key}' two classes, {labels[key]} and {label}."
            )
    return labels


def _key(name: str) -> str:
    """The form in which names in labels and names of samples are compared."""
    return visible(name.strip()).replace("\\", "/").removeprefix("./")


def _text_labels(text: str, path: Path) -> list[tuple[str | None, int]]:
    """Parse ``name label`` or ``label`` in every line, as in ImageNet's ``val.txt``."""
    found: list[tuple[str | None, int]] = []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line.strip())
        assert parts is not None
        where = f"line {number} of the labels '{visible(path)}'"
        found.append((parts["name"], _whole(parts["label"], where)))
    _same_form(found, path)
    return found


def _same_form(found: Sequence[tuple[str | None, int]], path: Path) -> None:
    if not found:
        raise DataError(f"the labels '{visible(path)}' hold no label.")
    if len({name is None for name, _ in found}) > 1:
        raise DataError(
            f"some lines of the labels '{visible(path)}' have a name and others have none."
        )


def _table_labels(text: str, path: Path) -> list[tuple[str | None, int]]:
    """Parse a CSV file; a table without labels, or with an unknown second column, is refused."""
    where = f"the labels '{visible(path)}'"
    try:
        lines = [line for line in csv.reader(lines_of(text), delimiter=_delimiter(text)) if line]
    except csv.Error as error:
        raise DataError(f"{where} are not a CSV file: {error}.") from error
    header = [title.strip() for title in lines[0]] if lines else []
    columns = [title.lower() for title in header]
    if columns.count(_LABEL_COLUMN) != 1:
        raise DataError(
            f"{where} need a header with one column 'label' (and 'file'); the first line is "
            f"'{','.join(header)[:_MOST_SHOWN]}'."
        )
    file_at = _file_column(header, where)
    found: list[tuple[str | None, int]] = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise DataError(
                f"line {number} of {where} has {counted(len(line), 'column')}, and the header "
                f"has {len(columns)}."
            )
        label = _whole(line[columns.index(_LABEL_COLUMN)], f"line {number} of {where}")
        found.append((None if file_at is None else line[file_at], label))
    _same_form(found, path)
    return found


def _json_labels(text: str, suffix: str, path: Path) -> list[tuple[str | None, int]]:
    found: list[tuple[str | None, int]] = []
    for where, fields in json_records(text, suffix, f"the labels '{visible(path)}'"):
        titles, values = [name for name, _ in fields], [value for _, value in fields]
        columns = [title.lower() for title in titles]
        if columns.count(_LABEL_COLUMN) != 1:
            raise DataError(
                f"{where} needs one field 'label' (and 'file'); it has '{','.join(titles)[:_MOST_SHOWN]}'."
            )
        label, file_at = columns.index(_LABEL_COLUMN), _file_column(titles, where)
        found.append((None if file_at is None else values[file_at], _whole(values[label], where)))
    _same_form(found, path)
    return found


def _file_column(header: Sequence[str], where: str) -> int | None:
    """The position of the column that names the sample; None where there is only the label."""
    columns = [title.lower() for title in header]
    files = [number for number, title in enumerate(columns) if title in _FILE_COLUMNS]
    if len(files) > 1:  # in a table that also has a file column, `name` is the class's name
        files = [number for number in files if columns[number] != "name"]
    if len(files) != 1 and len(columns) > 1:
        others = ", ".join(f"'{title}'" for title in header if title.lower() != _LABEL_COLUMN)
        raise DataError(
            f"{where} have the columns {others} beside 'label', and it is not clear which names the "
            "sample: call that column 'file'; if there is none, keep only the column 'label'."
        )
    return files[0] if files else None


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _whole(text: str, where: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise DataError(
            f"{where} has the label '{text.strip()[:_MOST_SHOWN]}'; a label is the number of a class, from "
            "0. Write the position of the class among the network's outputs."
        )
    return _class(int(text), where) if len(text) <= _MOST_DIGITS else _class(math.inf, where)


def _class(number: float, where: str) -> int:
    """A label that fits into int64."""
    if number >= 2**63:
        raise DataError(f"{where} has the label {number:.3g}, and no network has so many classes.")
    return int(number)


def label_arrays(arrays: Mapping[str, StoredArray]) -> list[str]:
    """Return the names of arrays that may be labels: by their names, else all vectors of integers."""
    named = [name for name in _ARRAY_NAMES if name in arrays]
    return named or [name for name, array in arrays.items() if _is_vector(array)]


def _array_labels(path: Path) -> list[int]:
    arrays = stored_arrays(path)
    named = label_arrays(arrays) or list(arrays)
    if len(named) != 1:
        have = ", ".join(f"'{name}' {arrays[name].shape}" for name in named) or "no array"
        raise DataError(
            f"'{visible(path)}' has no array that is clearly the labels: it holds {have}. Name one 'labels'."
        )
    array = arrays[named[0]]
    if not _is_vector(array):
        raise DataError(
            f"'{visible(path)}' has the array '{named[0]}' of shape {array.shape} and type {array.dtype}; "
            f"labels are one-dimensional whole numbers.{_hint(array.read())}"
        )
    values = array.read()
    if values.size and values.min() < 0:
        raise DataError(
            f"'{visible(path)}' holds the label {values.min()}; a label is the number of a class, from 0."
        )
    return [_class(int(value), f"'{visible(path)}'") for value in values]


def _is_vector(array: StoredArray) -> bool:
    return array.ndim == 1 and array.dtype.kind in "iu"


def _hint(array: np.ndarray) -> str:
    if array.dtype.kind in "US":
        return " Write the position of each class among the network's outputs."
    numbers = array.ndim == 2 and array.dtype.kind in "iufb"
    if numbers and array.shape[1] > 1 and ((array == 0) | (array == 1)).all():
        return " One-hot labels become numbers with .argmax(axis=1)."
    return ""


@dataclass(frozen=True)
class ClassFolders(SourceOf):
    """A source whose samples lie in one folder per class; classes are numbered from 0 in the order of names.

    Attributes:
        source: images of a folder or a tar file.
        root: the folder whose subfolders are the classes; None for the folders of the samples.
    """

    root: Path | None

    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass.

        Raises:
            DataError: a sample is in no class folder, or there are fewer than two class folders.
        """
        for sample in self.source:
            yield replace(sample, label=self._classes[self._folder(sample.name)])

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        folders = self.source.folders if self.root is None else _subfolders(self.root)
        if folders is None:
            raise DataError(
                f"'{self.description}' has no class folders: '--labels folders' takes a folder or a tar "
                "file of images, one folder a class."
            )
        if len(folders) < 2:
            raise DataError(
                f"'{visible(self.root or self.description)}' has {counted(len(folders), 'class folder')}; "
                "labels from folders need one folder for every class."
            )
        classes = {name: number for number, name in enumerate(sorted(folders))}
        other = next((n for n, c in classes.items() if n.isdecimal() and int(n) != c), None)
        if other is not None and all(name.isdecimal() for name in classes):
            _log.warning(
                "the folder '%s' is class %d, its position among the names in order. If the numbers are "
                "the classes, make the missing folders, empty, and name the folder above them with "
                "--labels, or give a CSV.",
                visible(other),
                classes[other],
            )
        return classes

    def _folder(self, name: str) -> str:
        parts = PurePosixPath(name).parts[:-1]
        # there may be other folders above the class folders
        found = [part for part in parts if part in self._classes]
        if not found or (self.root is not None and len(found) > 1):
            why = "no class folder" if not found else f"the class folders {found}"
            raise DataError(f"the image '{name}' lies in {why}; its label is not known.")
        return found[0]


def _subfolders(root: Path) -> frozenset[str]:
    try:
        entries = list(root.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder '{visible(root)}': {error.strerror}.") from error
    return frozenset(visible(e.name) for e in entries if e.is_dir() and not e.name.startswith("."))
