"""Tables become instances of option dataclasses, and instances tables again.

A table is what TOML and JSON hold: its keys are the names of fields, and a group of options is a table in it.
`read_table` checks and converts one to values, `merge` lays one set of values over another, `make` makes the
instance. `to_table` is the way back.
"""

from __future__ import annotations

import difflib
import enum
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trtbuild.errors import OptionError, decoding, did_you_mean
from trtbuild.options.fields import GroupField, Kind, OptionField, groups_of, options_of
from trtbuild.plugins import installed, reader_of
from trtbuild.toml_files import read_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trtbuild.options.fields import Option

__all__ = [
    "ENABLED",
    "FILE",
    "IN_MEMORY",
    "convert",
    "default_text",
    "dotted_names",
    "files_of",
    "make",
    "merge",
    "names_function",
    "read_file",
    "read_table",
    "read_text",
    "script_of",
    "to_table",
    "written",
]

_T = TypeVar("_T")

IN_MEMORY = "python object: "
"""What a table holds of data that were an object: this, and its type."""

_LARGEST_NUMBER = 2**63 - 1

# So many names a message suggests.
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


def convert(field: OptionField, given: Any, folder: Path | None = None) -> Any:
    """Return the value of an option from TOML or JSON types.

    Args:
        field: the option.
        given: what the file holds.
        folder: what paths are relative to; None leaves them as they are.

    Raises:
        ValueError: of another type, or out of range; the text goes on after the option's name.
        OptionError: the same, from an option's own parser.
    """
    if field.kind is Kind.ONE:
        return _one(field, given, folder)
    if field.kind is Kind.SEVERAL:
        return tuple(_one(field, item, folder) for item in _items(field, given))
    if isinstance(given, dict):
        return {name: _one(field, item, folder, named=True) for name, item in given.items()}
    return dict(_one(field, item, folder) for item in _items(field, given))


def read_text(field: OptionField, text: str) -> Any:
    """Return the value of an option from a text of the command line; see `convert`.

    Raises:
        ValueError: the text is not a value of this option.
        OptionError: the same, from an option's own parser.
    """
    if field.option.parse is None and field.type in (int, float):
        try:
            number = field.type(text)
        except ValueError as error:
            raise ValueError(f"cannot be '{text}'; it is {_NAMES[field.type]}") from error
        return convert(field, number)
    return convert(field, text if field.kind is Kind.ONE else [text])


def _items(field: OptionField, given: Any) -> list[Any]:
    separator = field.option.separator
    if isinstance(given, str) and separator:
        parts = [part.strip() for part in given.split(separator) if part.strip()]
        if not parts:
            raise ValueError("is an empty list; leave the option out")
        return parts
    if isinstance(given, str) and field.kind is Kind.SEVERAL:
        text = f"is a list, not a text; write {field.name} = [{json.dumps(given)}]"
        raise ValueError(text)
    if not isinstance(given, list | tuple):
        return [given]
    if not separator:
        return list(given)
    return [
        part
        for item in given
        for part in (_items(field, item) if isinstance(item, str) else [item])
    ]


def _one(field: OptionField, given: Any, folder: Path | None, *, named: bool = False) -> Any:
    option = field.option
    if isinstance(given, str):
        _check_text(given, is_path=field.type is Path or option.is_path)
    if option.parse is not None and not named and (isinstance(given, str) or field.type is object):
        value = option.parse(given)
    else:
        value = _typed(field.type, given)
    if option.plugin is not None and isinstance(value, str) and value.startswith(IN_MEMORY):
        if not option.is_path:  # of data, a command may name others
            raise ValueError(f"was a {value} in memory, which no file records; give it again")
    elif _is_wrong_choice(field, value):
        known = ", ".join(field.choices)
        hint = did_you_mean(str(value), field.choices)
        raise ValueError(f"cannot be '{value}': it is one of {known}{hint}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(field, value)
    return value if str(value) in option.words else _placed(option, value, folder)


def _is_wrong_choice(field: OptionField, value: Any) -> bool:
    if not field.choices or str(getattr(value, "value", value)) in field.choices:
        return False
    plugin = field.option.plugin
    if plugin is None:
        return True
    return ":" not in str(value) and str(value) not in {one.name for one in installed(plugin)}


def _check_text(text: str, *, is_path: bool) -> None:
    if is_path and not text:
        raise ValueError("is an empty text, which names no file")
    if "\0" in text:
        raise ValueError(f"cannot be {text!r}: no path or name holds a NUL")


_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


def _typed(wanted: type, given: Any) -> Any:
    if wanted is object or (
        isinstance(given, wanted) and isinstance(given, bool) <= (wanted is bool)
    ):
        return given
    if wanted is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if wanted is Path and isinstance(given, str):
        return Path(given)
    if issubclass(wanted, enum.Enum):
        return wanted(given) if given in [member.value for member in wanted] else given
    # bool before int: to Python, True is a number
    name = next(
        (text for kind, text in _NAMES.items() if isinstance(given, kind)), "a table or a list"
    )
    raise ValueError(f"is {_NAMES[wanted]}, not {name} ({given!r})")


def _check_range(field: OptionField, value: float) -> None:
    low, high = field.option.low, field.option.high
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise ValueError("is a number beyond 64 bits")
    # so that NaN is out of every range
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        span = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
        raise ValueError(f"is {span}, not {value:g}")


def _placed(option: Option, value: Any, folder: Path | None) -> Any:
    """A path relative to `folder`, from where we are."""
    if folder is None:
        return value
    if isinstance(value, Path):
        return folder / value
    return _moved(option, value, lambda path: str(folder / path))


def _moved(option: Option, value: Any, move: Callable[[str], str]) -> Any:
    """A text with the path in it moved: the whole of a path, the script of ``script.py:name``."""
    if not isinstance(value, str) or value.startswith(IN_MEMORY):
        return value
    if script_of(value) is not None:
        return move(value) if option.is_path or option.plugin is not None else value
    if not option.is_path:
        return value
    reader = reader_of(value) if option.plugin is not None else None
    if reader is not None:
        return f"{reader[0]}:{move(reader[1])}"
    return value if names_function(value) else move(value)


def names_function(text: str) -> bool:
    """Return whether a text is ``package.module:attribute`` and not a file that is there."""
    module, colon, attribute = text.partition(":")
    parts = (*module.split("."), *attribute.split("."))
    return bool(colon) and all(part.isidentifier() for part in parts) and not Path(text).exists()


def script_of(text: str) -> Path | None:
    """Return the file of a ``folder/script.py:attribute``; None of any other text."""
    script, colon, _ = text.rpartition(":")
    return Path(script) if colon and script.lower().endswith(".py") else None


def written(field: OptionField, value: Any, folder: Path | None = None) -> Any:
    """Return the value of an option as JSON types; see `to_table`."""
    if value is None:
        return None
    if field.kind is Kind.SEVERAL:
        return [_text(field, item, folder) for item in value]
    if field.kind is Kind.NAMED and field.option.plugin is not None:
        return list(value)  # each is named by where it is found
    if field.kind is Kind.NAMED:
        return {name: _text(field, item, folder) for name, item in value.items()}
    return _text(field, value, folder)


def _text(field: OptionField, value: Any, folder: Path | None) -> Any:
    if field.option.write is not None:
        return field.option.write(value)
    if field.option.takes_objects and not isinstance(value, str | Path):
        return IN_MEMORY + type(value).__qualname__
    if isinstance(value, enum.Enum):
        return value.value
    if folder is not None and str(value) not in field.option.words:
        if isinstance(value, Path):
            return _from(folder, value)
        value = _moved(field.option, value, lambda path: _from(folder, path))
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _from(folder: Path, path: str | Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


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


def default_text(default: Any) -> str:
    """Return a default as help shows it; empty where there is nothing to say."""
    if default is None or default is False or default in ((), {}):
        return ""
    if default is True:
        return "on"
    if isinstance(default, enum.Enum):
        return str(default.value)
    if isinstance(default, tuple):
        return ",".join(map(default_text, default))
    return f"{default:g}" if isinstance(default, float) else str(default)
