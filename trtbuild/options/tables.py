"""Tables become instances of option dataclasses, and instances tables again.

A table is what TOML and JSON hold: its keys are the names of fields, and a group of options is a table in it.
`read_table` checks and converts one to values, `merge` lays one set of values over another, `make` makes the
instance. `to_table` is the way back.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trtbuild.errors import OptionError, decoding
from trtbuild.options.fields import groups_of, options_of
from trtbuild.options.values import convert, written
from trtbuild.toml_files import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trtbuild.options.fields import GroupField, OptionField

__all__ = [
    "ENABLED",
    "FILE",
    "dotted_names",
    "files_of",
    "make",
    "merge",
    "read_file",
    "read_table",
    "to_table",
]

_T = TypeVar("_T")

# A message suggests at most this many names.
_MOST_NAMED = 4

ENABLED = "enabled"
"""Key of a group that can be left out: whether it is there."""
FILE = "file"
"""Key of a group that may stand in a TOML file of its own: that file."""


def read_table(
    cls: type, table: Mapping[str, Any], where: str, folder: Path | None = None, prefix: str = ""
) -> dict[str, Any]:
    """Return the values of a table: typed, group by group, only what the table names.

    Args:
        cls: the dataclass whose options these are.
        table: TOML or JSON types; None stands for what is not given.
        where: the file, for the error.
        folder: what paths are relative to; None leaves them as they are.
        prefix: the way into the table, such as ``data.``, for the error.

    Raises:
        OptionError: an unknown key, or a value of a wrong type or out of range.
    """
    if not isinstance(table, dict):
        raise OptionError(f"'{where}' holds no table of options, but {str(table)[:40]!r}.")
    options = {field.name: field for field in options_of(cls)}
    groups = {field.name: field for field in groups_of(cls)}
    values: dict[str, Any] = {}
    for key, given in table.items():
        if given is None:
            continue
        if key in options:
            values[key] = _located(options[key], given, where, folder, prefix)
        elif key in groups:
            values[key] = _read_group(groups[key], given, where, folder, prefix)
        else:
            raise OptionError(
                f"'{where}': there is no option '{prefix}{key}'{_nearest(cls, key, prefix)}."
            )
    return values


def _located(field: OptionField, given: Any, where: str, folder: Path | None, prefix: str) -> Any:
    with decoding(OptionError, f"'{where}': '{prefix}{field.name}' cannot be read"):
        try:
            return convert(field, given, folder)
        except (ValueError, OptionError) as error:
            text = str(error).rstrip(".")
            raise OptionError(f"'{where}': '{prefix}{field.name}' {text}.") from error


def _read_group(
    field: GroupField, given: Any, where: str, folder: Path | None, prefix: str
) -> dict[str, Any]:
    name = f"{prefix}{field.name}"
    if not isinstance(given, dict):
        raise OptionError(f"'{where}': '{name}' cannot be {given!r}; it is a table, [{name}].")
    table = dict(given)
    values: dict[str, Any] = {}
    if field.group.switch and ENABLED in table:
        enabled = table.pop(ENABLED)
        if not isinstance(enabled, bool):
            raise OptionError(f"'{where}': '{name}.{ENABLED}' is true or false, not {enabled!r}.")
        values[ENABLED] = enabled
    if field.group.from_file and FILE in table:
        named = table.pop(FILE)
        if not isinstance(named, str):
            raise OptionError(f"'{where}': '{name}.{FILE}' is a path, not {named!r}.")
        path = (folder or Path()) / named
        values = read_file(field.group.kind, path, field.group.title.lower())
    return merge(values, read_table(field.group.kind, table, where, folder, f"{name}."))


def read_file(cls: type, path: Path, subject: str) -> dict[str, Any]:
    """Return the values of a TOML file; paths in it are relative to its folder.

    Raises:
        OptionError: the file cannot be read, or `read_table` refuses it.
    """
    return read_table(cls, read_toml(path, subject), str(path), path.parent)


def files_of(cls: type, path: Path, subject: str) -> tuple[Path, ...]:
    """Return the TOML file `path` and those that it names for groups of options.

    Raises:
        OptionError: `path` cannot be read.
    """
    return (path, *_named_files(cls, read_toml(path, subject), path.parent))


def _named_files(cls: type, table: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    for part in groups_of(cls):
        given = table.get(part.name)
        if isinstance(given, dict):
            if part.group.from_file and FILE in given:
                yield folder / given[FILE]
            yield from _named_files(part.group.kind, given, folder)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of both; where both have one, that of `above`."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        nested = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = merge(under or {}, value) if nested else value
    return merged


def make(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """Return an instance of `cls`; what `values` do not hold has its default.

    Raises:
        OptionError: the dataclass refuses the values.
    """
    arguments = dict(values)
    for part in groups_of(cls):
        given = arguments.get(part.name, {})
        if isinstance(given, dict):
            arguments[part.name] = _make_group(part, given)
    for field in options_of(cls):
        if field.required and field.name not in arguments:
            flag = "" if field.option.argument else f" ({field.option.short or field.flag})"
            raise OptionError(f"'{field.name}'{flag} is missing: {field.option.help}")
    return cls(**arguments)


def _make_group(field: GroupField, given: Mapping[str, Any]) -> Any:
    group = field.group
    values = {key: value for key, value in given.items() if key != ENABLED}
    if group.switch:
        if given.get(ENABLED) is False:
            return None
    elif field.optional:
        asked = [values.get(name) for name in group.needs] if group.needs else [values]
        if not any(asked):
            return None
    return make(group.kind, {**group.otherwise, **values})


def to_table(instance: Any, folder: Path | None = None) -> dict[str, Any]:
    """Return an instance as JSON types that `read_table` takes back; None where nothing is set.

    Args:
        instance: of a dataclass with options.
        folder: paths become relative to it; None leaves them as they are.
    """
    table: dict[str, Any] = {
        field.name: written(field, getattr(instance, field.name), folder)
        for field in options_of(type(instance))
    }
    for field in groups_of(type(instance)):
        value = getattr(instance, field.name)
        if value is not None:
            table[field.name] = to_table(value, folder)
        else:
            table[field.name] = {ENABLED: False} if field.group.switch else None
    return table


def _nearest(cls: type, key: str, prefix: str) -> str:
    """What the user may have meant: an option of this table, then those of others."""
    here = {field.name: field.name for field in options_of(cls)}
    here |= {part.name: part.name for part in groups_of(cls)}
    here |= {field.flag.lstrip("-"): field.name for field in options_of(cls)}
    found = [here[name] for name in difflib.get_close_matches(key, here, 1)]
    if not prefix:
        deeper = [name for name in dotted_names(cls) if "." in name]
        last = [name.rpartition(".")[2] for name in deeper]
        # where this table has a name that is near, another's must be the very same
        close = [key] if found else difflib.get_close_matches(key, last, 1)
        found += [name for name, end in zip(deeper, last) if end in close]
    if not found:
        return ""
    shown = " or ".join(f"'{prefix}{name}'" for name in found[:_MOST_NAMED])
    return f" (did you mean {shown}?)"


def dotted_names(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield the name of every option, with its groups'."""
    for field in options_of(cls):
        yield prefix + field.name
    for group in groups_of(cls):
        yield from dotted_names(group.group.kind, f"{prefix}{group.name}.")
