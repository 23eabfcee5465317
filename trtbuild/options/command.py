"""A recipe as the command line that asks for it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from trtbuild.options.fields import Kind, OptionField, groups_of, options_of
from trtbuild.options.values import written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["command_line"]


def command_line(
    command: str, arguments: tuple[str, ...], recipe: Any, added: Mapping[str, str], skip: str = ""
) -> str:
    """Return the command that does `recipe` again with some options more or other ones, for a POSIX shell.

    Args:
        command: such as ``engine``.
        arguments: in front of the options, such as the network.
        recipe: the dataclass that the command is made of; options at their default are left out.
        added: flag -> value; it stands at the end, in the place of what the recipe has, unless the option may
            be repeated.
        skip: flag of an option of the recipe to leave out.
    """
    words = ["trtbuild", command, *arguments]
    for field, flag, value in _flags(recipe, {}):
        repeats = field is not None and field.kind is not Kind.ONE and not field.option.separator
        if flag != skip and (repeats or flag not in added):
            words += [flag] if value is None else [flag, value]
    for flag, value in added.items():
        words += [flag, value]
    return shlex.join(words)


def _flags(
    instance: Any, otherwise: Mapping[str, Any]
) -> Iterator[tuple[OptionField | None, str, str | None]]:
    """Options, their flags, and their values; None for a switch."""
    for field in options_of(type(instance)):
        value = getattr(instance, field.name)
        default = otherwise.get(field.name, field.default)
        if field.option.argument or (value == default and not field.required):
            continue
        yield from ((field, *found) for found in _of_option(field, value))
    for part in groups_of(type(instance)):
        value = getattr(instance, part.name)
        if value is not None:
            yield from _flags(value, part.group.otherwise)
        elif part.group.switch:
            yield None, f"--no-{part.group.switch[2:]}", None


def _of_option(field: OptionField, value: Any) -> Iterator[tuple[str, str | None]]:
    if value is None:
        return
    if field.type is bool and field.kind is Kind.ONE:
        yield (field.flag if value else f"--no-{field.flag[2:]}"), None
        return
    if field.option.flag_unit is not None:
        value = value * field.option.flag_unit[1]
    plain = written(field, value)
    if isinstance(plain, dict):
        # as the help has it: INPUT=NUMBERS, TENSOR:AXIS; without a mark, the flag is the name of one
        mark = next((one for one in field.option.metavar if one in "=:"), "")
        items = [
            f"{name}{mark}{_plain(item)}" if mark else _plain(item)
            for name, item in plain.items()
            if mark or name == field.flag[2:]
        ]
    elif isinstance(plain, list):
        # one value of several numbers is a size: 224x224
        items = [str(item) for item in plain]
        items = items if field.kind is not Kind.ONE else ["x".join(items)]
    else:
        items = [_plain(plain)]
    if field.option.separator and items:
        items = [field.option.separator.join(items)]
    for item in items:
        yield field.flag, item


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "none" if value is None else str(value)
