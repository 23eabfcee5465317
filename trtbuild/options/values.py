"""The value of one option: read from TOML, JSON or a text, checked, and written back."""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.errors import did_you_mean
from trtbuild.options.fields import Kind, OptionField
from trtbuild.plugins import installed, reader_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.options.fields import Option

__all__ = [
    "IN_MEMORY",
    "convert",
    "default_text",
    "names_function",
    "read_text",
    "script_of",
    "written",
]

IN_MEMORY = "python object: "
"""What a table holds of data that were an object: this, and its type."""

_LARGEST_NUMBER = 2**63 - 1


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
        raise ValueError(f"is {span}, not {value:g}{_as_percent(field.option, value)}")


def _as_percent(option: Option, value: float) -> str:
    """How to write a share that was meant as percent; empty for other options and values."""
    high = option.high
    if (
        option.metavar != "SHARE"
        or option.parse is None
        or high is None
        or not 1 <= value <= 100 * high
    ):
        return ""
    return f"; write {value:g} percent as {value:g}%"


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
