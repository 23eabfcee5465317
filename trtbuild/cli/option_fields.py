"""Options of the command line, made from the fields of a recipe (`trtbuild.options.fields`)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
from click.shell_completion import CompletionItem

from trtbuild.cli.help import SectionedOption
from trtbuild.errors import OptionError
from trtbuild.options.fields import (
    Group,
    GroupField,
    Kind,
    OptionField,
    groups_of,
    options_of,
)
from trtbuild.options.tables import ENABLED, FILE, files_of, make, merge, read_file
from trtbuild.options.values import default_text, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Given", "check_no_flags", "recipe_options"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Given(Generic[_T]):
    """The options of a recipe from the command line, which override those of its recipe file.

    Attributes:
        cls: the recipe's dataclass.
        values: see `trtbuild.options.tables.read_table`.
        files: the settings files that were read.
    """

    cls: type[_T]
    values: dict[str, Any]
    files: tuple[Path, ...] = ()

    def make(self, **fixed: Any) -> _T:
        """Return the recipe.

        Args:
            **fixed: values of fields that are not options, such as arguments.

        Raises:
            OptionError: values contradict each other.
        """
        return make(self.cls, merge(self.values, fixed))

    def without(self, *names: str) -> Given[_T]:
        """Return a copy without the given fields."""
        kept = {k: v for k, v in self.values.items() if k not in names}
        return Given(self.cls, kept, self.files)

    def only(self, name: str) -> Given[_T]:
        """Return a copy with only the given field."""
        return self.without(*(self.values.keys() - {name}))


def check_no_flags(given: Given[Any], network: str) -> None:
    """Check that no option for PyTorch modules was given with the file `network`.

    Raises:
        OptionError: there is one; it would have no effect.
    """
    for flag in _flags_of(given.cls, given.values):
        raise OptionError(
            f"{flag} is for a PyTorch module, and '{network}' is not package.module:factory;"
            " leave the option out."
        )


def _flags_of(cls: type, values: Mapping[str, Any]) -> Iterator[str]:
    for described in options_of(cls):
        if described.name in values:
            yield described.flag
    for part in groups_of(cls):
        if isinstance(values.get(part.name), dict):
            yield from _flags_of(part.group.kind, values[part.name])


class _Text(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """Converts the text of one option into its value."""

    name = "text"

    def __init__(self, described: OptionField) -> None:
        self._described = described

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of the text `value`."""
        del param, ctx
        if not isinstance(value, str):
            return value
        try:
            return read_text(self._described, value)
        except ValueError as error:
            raise OptionError(f"{self._described.flag} {error}.") from error

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the choices that begin with `incomplete`; for a path use the shell's own completion."""
        del ctx, param
        described = self._described
        if described.type is Path or described.option.is_path:
            return [CompletionItem(incomplete, type="file")]
        return [
            CompletionItem(choice) for choice in described.choices if choice.startswith(incomplete)
        ]


@dataclass(frozen=True)
class _Place:
    """Where a parameter's value goes in a recipe: the groups on the path, and the key."""

    groups: tuple[str, ...]
    key: str
    file_of: Group | None = None


@dataclass
class _Options:
    """The click options of a recipe, and where their values go."""

    made: list[Callable[[Any], Any]] = field(default_factory=list)
    places: dict[str, _Place] = field(default_factory=dict)

    def add(self, place: _Place, *flags: str, **how: Any) -> None:
        """Add a click option whose value goes to `place`."""
        name = place.key
        if name in (ENABLED, FILE) or name in self.places or not name.isidentifier():
            name = "_".join((*place.groups, place.key))
        self.places[name] = place
        self.made.append(click.option(*flags, name, cls=SectionedOption, **how))


def recipe_options(
    cls: type, *, name: str = "given", file: bool = False, skip: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a recipe to a command, which gets them as one `Given`.

    Args:
        cls: the recipe's dataclass.
        name: name of the command's parameter for them.
        file: whether to add ``--recipe FILE``.
        skip: options and groups of the recipe that this command does not have.
    """
    options = _Options()
    _collect(options, cls, (), "", {}, frozenset(skip))

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        """Return `command` with the options, which it gets as one parameter."""

        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            path = kwargs.pop("recipe_file", None)
            values: dict[str, Any] = {} if path is None else read_file(cls, path, "recipe")
            read = [] if path is None else [*files_of(cls, path, "recipe")]
            for parameter, place in options.places.items():
                value = kwargs.pop(parameter)
                if value is not None and value != ():
                    read += [value] if place.file_of is not None else []
                    values = merge(values, _placed(place, value))
            return command(*args, **{name: Given(cls, values, tuple(read))}, **kwargs)

        found: Callable[..., Any] = wrapped
        for option in reversed(options.made):
            found = option(found)
        return click.option(
            "--recipe", "recipe_file", type=click.Path(path_type=Path), metavar="FILE",
            help="TOML file with any of these options; the command line wins. See `trtbuild init`.",
        )(found) if file else found  # fmt: skip

    return decorate


def _placed(place: _Place, value: Any) -> dict[str, Any]:
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        value = {name: item for part in value for name, item in part.items()}
    elif isinstance(value, tuple) and value and isinstance(value[0], tuple):
        value = tuple(item for part in value for item in part)
    if place.file_of is not None:
        values = read_file(place.file_of.kind, value, place.file_of.title.lower())
    else:
        values = {place.key: value}
    for name in reversed(place.groups):
        values = {name: values}
    return values


def _collect(
    options: _Options,
    cls: type,
    groups: tuple[str, ...],
    title: str,
    otherwise: dict[str, Any],
    skip: frozenset[str],
) -> None:
    for described in options_of(cls):
        if described.name not in skip and not described.option.argument:
            default = otherwise.get(described.name, described.default)
            _add(options, _Place(groups, described.name), described, default, title)
    for part in groups_of(cls):
        if part.name not in skip:
            _add_group(options, part, (*groups, part.name))


def _add_group(options: _Options, part: GroupField, groups: tuple[str, ...]) -> None:
    group = part.group
    if group.switch:
        options.add(
            _Place(groups, ENABLED), f"{group.switch}/--no-{group.switch[2:]}",
            default=None, section=group.title, help=f"{group.help}  [default: on]",
            essential=group.essential,
        )  # fmt: skip
    if group.from_file:
        options.add(
            _Place(groups, FILE, group), group.from_file, type=click.Path(path_type=Path),
            metavar="FILE", section=group.title, help=group.help, essential=group.essential,
        )  # fmt: skip
    otherwise = dict(group.otherwise)
    if part.optional and not group.switch:
        otherwise = dict.fromkeys(group.needs)  # options that enable the group have no default
    _collect(options, group.kind, groups, group.title, otherwise, frozenset(group.file_only))


def _add(
    options: _Options, place: _Place, described: OptionField, default: Any, title: str
) -> None:
    option = described.option
    how: dict[str, Any] = {
        "section": title, "help": _help(described, default), "default": None,
        "essential": option.essential,
    }  # fmt: skip
    flags = [described.flag]
    if described.type is bool and described.kind is Kind.ONE:
        flags = [f"{described.flag}/--no-{described.flag[2:]}"]
    else:
        how |= {"type": _Text(described), "metavar": _metavar(described)}
        if described.kind is not Kind.ONE:
            how |= {"multiple": True, "default": ()}
        if option.bare is not None:
            how |= {"is_flag": False, "flag_value": option.bare}
    if option.short:
        flags.insert(0, option.short)
    options.add(place, *flags, **how)


_METAVARS = {int: "INTEGER", float: "FLOAT", Path: "PATH"}


def _metavar(described: OptionField) -> str:
    if described.option.metavar:
        return described.option.metavar
    if described.choices:
        return f"[{'|'.join(described.choices)}]"
    return _METAVARS.get(described.type, "TEXT")


def _help(described: OptionField, default: Any) -> str:
    """The help sentence, with the unit, the default and the limits in brackets."""
    notes = list(_notes(described, default))
    return described.option.help + (f"  [{'; '.join(notes)}]" if notes else "")


def _notes(described: OptionField, default: Any) -> Iterator[str]:
    option = described.option
    unit, factor = option.flag_unit or (option.unit, 1)
    if unit:
        yield unit
    if option.flag_unit is not None and default is not None:
        default = factor * default
    if text := option.when_absent or default_text(default):
        yield f"default: {text}"
    low, high = option.low, option.high
    if low is not None and high is not None:
        yield f"{low:g}<=x<={high:g}"
    elif low is not None:
        yield f"x>={low:g}"
