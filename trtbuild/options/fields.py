"""An option is described once, at its field: help, flag, unit, range, and how text becomes its value.

The command line (`trtbuild.cli.option_fields`), recipe files (`trtbuild.options.tables`) and the file that
``trtbuild init`` writes are made from these descriptions::

    @dataclass(frozen=True)
    class Gate:
        min_sqnr: float | None = option(None, "Least SQNR of every output.", unit="dB")
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.plugins import Kind as Plugin

__all__ = [
    "Group",
    "GroupField",
    "Kind",
    "Option",
    "OptionField",
    "group",
    "groups_of",
    "option",
    "options_of",
]

_OPTION = "trtbuild.option"
_GROUP = "trtbuild.group"


@dataclass(frozen=True, kw_only=True)
class Option:
    """The description of one option.

    Attributes:
        help: one sentence for a user.
        flag: on the command line; empty for ``--`` and the field's name.
        short: a second flag of one letter, such as ``-o``.
        unit: of the value, as help shows it.
        metavar: what stands for the value in help; empty for its type.
        flag_unit: of the flag, where that is another one, and how many of it are one `unit`.
        low, high: the least and the largest value; None for no limit.
        choices: the texts that are allowed; empty for all.
        parse: makes the value of a text (where the type is `object`: of whatever TOML gives), and raises
            `ValueError`; None goes by the field's type. Of a field that holds several values, or a
            mapping, it makes one (of a mapping, name and value).
        write: the text that `parse` reads back; None for values that are TOML types themselves.
        separator: between several values in one text; empty where the flag is repeated instead.
        bare: what the flag means without a value; None where it needs one.
        example: a value in TOML, for a file to fill in; empty goes by default and type.
        when_absent: what help says of a default of None.
        argument: whether it is an argument of the command, so that there is no flag.
        is_path: whether a text is a path, unless it is ``module:function``.
        words: texts in the place of a path that are none.
        plugin: the kind of code (`trtbuild.plugins`) that a text may name, besides `choices` or a path.
        takes_objects: whether Python may give an object in the place of a text that names one.
        essential: whether a command of many options shows it without being asked for all of them.
    """

    help: str
    flag: str = ""
    short: str = ""
    unit: str = ""
    flag_unit: tuple[str, float] | None = None
    metavar: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    write: Callable[[Any], str] | None = None
    separator: str = ""
    bare: str | None = None
    example: str = ""
    when_absent: str = ""
    argument: bool = False
    is_path: bool = False
    words: tuple[str, ...] = ()
    plugin: Plugin | None = None
    takes_objects: bool = False
    essential: bool = False


def option(default: Any, text: str, /, **described: Any) -> Any:
    """Return a dataclass field with its description.

    Args:
        default: the field's default; `dataclasses.MISSING` for none.
        text: the help.
        **described: see `Option`.
    """
    metadata = {_OPTION: Option(help=text, **described)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The description of a field that holds the options of one subject.

    Attributes:
        kind: the dataclass.
        title: heads its options in help.
        switch: flag that leaves it out (with ``--no-``); the field is None then. Empty for none.
        needs: of a group that is None unless asked for: the options that ask for it; empty for all.
        otherwise: values in place of the dataclass's own defaults.
        help: of the switch, or of `from_file`.
        from_file: flag that names a TOML file of the whole group; empty for none.
        file_only: options that only a recipe can set, as this command has no use for their flags, or another.
        essential: as of an option: of `switch` and `from_file`.
    """

    kind: type
    title: str
    switch: str = ""
    needs: tuple[str, ...] = ()
    otherwise: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    help: str = ""
    from_file: str = ""
    file_only: tuple[str, ...] = ()
    essential: bool = False


def group(
    kind: type,
    title: str,
    /,
    *,
    optional: bool = False,
    required: bool = False,
    **described: Any,
) -> Any:
    """Return a dataclass field that holds the options of one subject.

    Args:
        kind: their dataclass.
        title: heads them in help.
        optional: the field is None unless one of the options is given.
        required: the field has no default.
        **described: see `Group`.
    """
    found = Group(kind=kind, title=title, **described)
    metadata = {_GROUP: found}
    if required:
        return dataclasses.field(metadata=metadata)
    if optional:
        return dataclasses.field(default=None, metadata=metadata)
    return dataclasses.field(default_factory=lambda: kind(**found.otherwise), metadata=metadata)


class Kind(enum.Enum):
    """How many values a field holds."""

    ONE = "one"
    SEVERAL = "several"
    NAMED = "named"


@dataclass(frozen=True)
class OptionField:
    """One option of a dataclass.

    Attributes:
        name: of the field.
        option: its description.
        kind: how many values it holds.
        type: of a value: bool, int, float, str, `Path`, an enumeration, or `object` for any.
        default: None where there is none, too.
        required: whether there is no default.
    """

    name: str
    option: Option
    kind: Kind
    type: type
    default: Any
    required: bool

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that are allowed; empty for all."""
        if issubclass(self.type, enum.Enum):
            return tuple(str(member.value) for member in self.type)
        return self.option.choices


@dataclass(frozen=True)
class GroupField:
    """One group of a dataclass; `optional` says that the field may be None."""

    name: str
    group: Group
    optional: bool


def options_of(cls: type) -> tuple[OptionField, ...]:
    """Return the options of a dataclass, in the order of its fields."""
    return _options_of(cls)


def groups_of(cls: type) -> tuple[GroupField, ...]:
    """Return the groups of a dataclass, in the order of its fields."""
    return _groups_of(cls)


@cache
def _options_of(cls: type) -> tuple[OptionField, ...]:
    return tuple(
        _described(cls, field, field.metadata[_OPTION])
        for field in dataclasses.fields(cls)
        if _OPTION in field.metadata
    )


@cache
def _groups_of(cls: type) -> tuple[GroupField, ...]:
    return tuple(
        GroupField(field.name, found, field.default is None or bool(found.switch))
        for field in dataclasses.fields(cls)
        if (found := field.metadata.get(_GROUP)) is not None
    )


def _described(cls: type, field: dataclasses.Field[Any], described: Option) -> OptionField:
    kind, value_type, choices = _kind_of(_hint(cls, field))
    if choices:
        described = dataclasses.replace(described, choices=choices)
    required = False
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif default is dataclasses.MISSING:
        default, required = None, True
    return OptionField(field.name, described, kind, value_type, default, required)


def _hint(cls: type, field: dataclasses.Field[Any]) -> Any:
    """The field's type; the other fields' may name what only a type checker imports."""
    owner = next(
        base
        for base in reversed(cls.__mro__)
        if vars(base).get("__dataclass_fields__", {}).get(field.name) is field
    )
    holder = type("_Holder", (), {"__annotations__": {field.name: field.type}})
    return get_type_hints(holder, vars(sys.modules[owner.__module__]))[field.name]


def _kind_of(hint: Any) -> tuple[Kind, type, tuple[str, ...]]:
    """How many values, of which type, and the texts that are allowed."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        return _kind_of(others[0]) if len(others) == 1 else (Kind.ONE, object, ())
    if origin is Literal:
        return Kind.ONE, str, tuple(str(argument) for argument in arguments)
    if origin in (tuple, SequenceType):
        _, value_type, choices = _kind_of(arguments[0])
        return Kind.SEVERAL, value_type, choices
    if origin is MappingType or origin is dict:
        return Kind.NAMED, _kind_of(arguments[1])[1], ()
    plain = isinstance(hint, type) and hint is not Any  # a class since Python 3.11
    return Kind.ONE, hint if plain else object, ()
