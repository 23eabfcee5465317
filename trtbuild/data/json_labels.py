"""Files of class labels in JSON: names with labels, records, or labels alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from trtbuild.errors import DataError, decoding
from trtbuild.files import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JSON_SUFFIXES", "Record", "json_records"]

_LINES = (".jsonl", ".ndjson")
JSON_SUFFIXES = frozenset({".json", *_LINES})
"""The endings of the names of such files."""

_FORMS = (
    'write {"a.png": 3, "b.png": 7}; or {"file": "a.png", "label": 3} in every line of a .jsonl file or '
    "every entry of an array; or labels alone, in the order of the samples"
)


class Record(NamedTuple):
    """One label with what stands beside it.

    Attributes:
        where: where it stands, for messages.
        fields: names and values, all as text, in their order; a name may come twice.
    """

    where: str
    fields: tuple[tuple[str, str], ...]


class _Object(tuple[tuple[str, Any], ...]):
    """An object of JSON; unlike a dict, it keeps names that come twice."""

    __slots__ = ()


def json_records(text: str, suffix: str, where: str) -> list[Record]:
    """Return every label of a file, with its name in the field ``file`` unless the file has records.

    Args:
        text: the file's content.
        suffix: one of `JSON_SUFFIXES`.
        where: the file in words, for messages.

    Raises:
        DataError: it is not JSON, or has another form.
    """
    if suffix in _LINES:
        lines = ((f"line {n} of {where}", one) for n, one in enumerate(lines_of(text), 1))
        return [_record(at, _parsed(line, at)) for at, line in lines if line.strip()]
    content = _parsed(text, where)
    if isinstance(content, _Object):
        return list(_entries(content, where))
    if not isinstance(content, list):
        raise DataError(f"{where} hold no labels: {_FORMS}.")
    return [_record(f"entry {n} of {where}", one) for n, one in enumerate(content, 1)]


def _parsed(text: str, where: str) -> Any:
    with decoding(DataError, f"{where} cannot be read as JSON"):
        return json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str)


def _entries(content: _Object, where: str) -> Iterator[Record]:
    """The entries of an object of names and labels."""
    for name, label in content:
        if isinstance(label, (list, _Object)):
            raise DataError(f"{where} have no number at '{name}': {_FORMS}.")
        yield Record(f"the entry '{name}' of {where}", (("file", name), ("label", _text(label))))


def _record(where: str, content: Any) -> Record:
    if isinstance(content, _Object):
        return Record(where, tuple((name, _text(value)) for name, value in content))
    if isinstance(content, list):
        raise DataError(f"{where} is a list: {_FORMS}.")
    return Record(where, (("label", _text(content)),))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
