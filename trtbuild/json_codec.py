"""Dataclasses as JSON and back, exactly: tuples, nested ones, and numbers that JSON does not have.

JSON has no infinity; here it is the string ``"inf"`` (``"-inf"``, ``"nan"``), so that no other reader takes
it for an ordinary number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import re
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from trtbuild.errors import InputError, decoding
from trtbuild.files import content_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "NOT_IN_JSON",
    "Document",
    "decode",
    "dumps",
    "encode",
    "json_fields",
    "load_json",
    "load_object",
]

_T = TypeVar("_T")
_D = TypeVar("_D", bound="Document")
# Larger counts do not fit a float and an int64 array; Python reads numbers of any length.
_MOST_COUNT = 2**63

NOT_IN_JSON = types.MappingProxyType({"recorded": False})
"""Metadata of a dataclass's field that is not written to JSON, such as pixels; the field needs a default."""


def json_fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a dataclass that `encode` writes."""
    return tuple(f for f in dataclasses.fields(cls) if f.metadata.get("recorded", True))


def encode(value: Any) -> Any:
    """Return a dataclass, or a value of its fields, as JSON types.

    Enumerations become their values, paths their text, NumPy's scalars Python's numbers.

    Raises:
        TypeError: a type that records do not use.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in json_fields(value)}
    if isinstance(value, Mapping):
        return {_plain_key(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return _plain_value(value)


class Document:
    """The base of dataclasses that commands print with ``--json``, or write to files for programs.

    A subclass sets `SCHEMA`, and `VERSION` from its second version on. Its schema in ``docs/schemas`` is made
    from its fields by ``tools/write_schemas.py``, which lists all subclasses.
    """

    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """Return JSON types: the schema's name and version, then the fields."""
        return {"schema": self.SCHEMA, "version": self.VERSION, **encode(self)}

    @classmethod
    def load(cls: type[_D], path: str | Path) -> _D:
        """Read a file of `to_json`.

        Raises:
            InputError: unreadable, or of another schema or version.
        """
        return decode(cls, load_object(path, cls.SCHEMA, cls.VERSION), f"'{path}'")


def _plain_value(value: Any) -> str | bool | int | float | None:
    if isinstance(value, Enum):
        value = value.value
    elif getattr(value, "shape", None) == ():  # a NumPy scalar, without importing NumPy
        value = value.item()
    elif isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def _plain_key(key: Any) -> str:
    plain = _plain_value(key)
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)  # for example the number of an axis; JSON keys are always texts
    if not isinstance(plain, str):
        raise TypeError(f"cannot write a key of type {type(key).__name__} as JSON")
    return plain


# Control and format characters, except those that JSON escapes itself.
_UNSEEN = re.compile(
    r"[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def dumps(value: Any) -> str:
    """Return `encode` of `value` as readable JSON text that can be written as UTF-8.

    Lone surrogates, and characters that control a terminal without being visible (such as right-to-left
    marks), are escaped.
    """
    text = json.dumps(encode(value), indent=1, ensure_ascii=False, allow_nan=False)
    text = _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)
    return text.encode("utf-8", "backslashreplace").decode()


def decode(cls: type[_T], data: Any, where: str, *, allow_unknown: bool = False) -> _T:
    """Make a `cls` from the result of `encode`.

    Args:
        cls: a frozen dataclass.
        data: JSON types.
        where: what is read (a file, and the path inside it), for the error.
        allow_unknown: whether to ignore unknown fields, which a newer version may have added.

    Raises:
        InputError: a field is missing, unknown, or of another type.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where} should be an object with the fields of {cls.__name__}.")
    hints = get_type_hints(cls)
    known = {f.name: f for f in json_fields(cls)}
    if not allow_unknown and (unknown := sorted(set(data) - set(known))):
        raise InputError(
            f"{where} has the field '{unknown[0]}', which {cls.__name__} does not have."
        )
    values = {}
    for name, field in known.items():
        if name in data:
            values[name] = _decode(
                hints[name], data[name], f"{where}, {name}", allow_unknown=allow_unknown
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where} lacks the field '{name}'.")
    with decoding(InputError, f"{where} is no {cls.__name__}"):
        return cls(**values)


def _decode(hint: Any, data: Any, where: str, *, allow_unknown: bool) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    inner = functools.partial(_decode, where=where, allow_unknown=allow_unknown)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, data, inner)
    if origin is tuple and isinstance(data, list):
        hints = arguments if arguments[-1] is not Ellipsis else [arguments[0]] * len(data)
        if len(hints) != len(data):
            raise InputError(f"{where} should be a list of {len(hints)}.")
        return tuple(inner(h, item) for h, item in zip(hints, data))
    if origin in (dict, Mapping) and isinstance(data, dict):
        return {key: inner(arguments[1], item) for key, item in data.items()}
    if dataclasses.is_dataclass(hint):
        return decode(hint, data, where, allow_unknown=allow_unknown)  # type: ignore[arg-type]
    return _plain(hint, data, where)


def _one_of(hints: Sequence[Any], data: Any, inner: Callable[[Any, Any], Any]) -> Any:
    """Return `data` as the first type of a union that it fits."""
    if data is None:
        return None
    *others, last = (hint for hint in hints if hint is not types.NoneType)
    for hint in others:
        with contextlib.suppress(InputError):
            return inner(hint, data)
    return inner(last, data)


def _plain(hint: Any, data: Any, where: str) -> Any:
    is_bool = isinstance(data, bool)
    if hint is float and (
        data in ("inf", "-inf", "nan") or (isinstance(data, int) and not is_bool)
    ):
        with decoding(InputError, f"{where} should be a number"):
            return float(data)
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, Enum):
        with decoding(InputError, f"{where} is none of {', '.join(str(k.value) for k in kind)}"):
            return kind(data)
    if kind is int and isinstance(data, int) and abs(data) >= _MOST_COUNT:
        raise InputError(f"{where} should be a whole number of at most 64 bits.")
    if hint is Any or (isinstance(data, kind) and is_bool <= (kind is bool)):
        return data
    raise InputError(f"{where} should be of type {getattr(hint, '__name__', hint)}.")


def load_json(path: str | Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    with decoding(InputError, f"cannot read '{path}'"):
        content = content_of(Path(path))
    with decoding(InputError, f"'{path}' is not JSON"):
        return json.loads(content)


def load_object(path: str | Path, schema: str, version: int) -> dict[str, Any]:
    """Return the other fields of a JSON file with this ``schema`` and ``version``.

    Raises:
        InputError: the file does not exist, is not JSON, or has another schema or version.
    """
    data = load_json(path)
    found = (data.get("schema"), data.get("version")) if isinstance(data, dict) else (None, None)
    if found != (schema, version):
        if found[0] != schema:
            named = f"its schema is {found[0]!r}" if found[0] is not None else "it names no schema"
            raise InputError(f"'{path}' is not a {schema} file: {named}.")
        raise InputError(
            f"'{path}' is of version {found[1]!r} of {schema}, and this trtbuild reads version {version}. "
            "Make it again with this trtbuild."
        )
    return {key: item for key, item in data.items() if key not in ("schema", "version")}
