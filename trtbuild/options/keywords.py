"""Options of a recipe as keyword arguments, under the names that the command line has for them.

``--min-sqnr 25`` is ``min_sqnr=25``, ``--no-latency`` is ``latency=False``, ``--seconds 2`` is ``seconds=2``.
The recipe's own fields work, too (``float_patterns``), and so does a whole group under its name: its
dataclass, or a dict as a recipe file would have the table.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError, did_you_mean
from trtbuild.options.fields import Group, Kind, OptionField, groups_of, options_of
from trtbuild.options.tables import ENABLED, merge, read_file, read_table
from trtbuild.options.values import convert, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Keyword", "keywords_of", "recipe_values"]


@dataclass(frozen=True)
class Keyword:
    """One keyword argument: an option, a whole group, or both (``task``, ``preprocess``, ``tune``).

    Attributes:
        groups: the groups around it, from the recipe on.
        option: the option of this name; None where there is none.
        has_flag_unit: whether numbers are in the flag's unit, as the name is the flag's.
        group: the group of this name; None where there is none.
        group_place: the groups around that one, and itself.
    """

    groups: tuple[str, ...] = ()
    option: OptionField | None = None
    has_flag_unit: bool = False
    group: Group | None = None
    group_place: tuple[str, ...] = ()


def keywords_of(cls: type) -> dict[str, Keyword]:
    """Return the keyword arguments of a recipe, those that stand for single options first."""
    flags: dict[str, Keyword] = {}
    names: dict[str, Keyword] = {}
    groups: dict[str, list[Keyword]] = {}
    for found, is_flag in _walk(cls, ()):
        if found.group is not None:
            groups.setdefault(found.group_place[-1], []).append(found)
            named = (found.group.switch or found.group.from_file)[2:].replace("-", "_")
            if named:
                flags[named] = found
            continue
        assert found.option is not None
        flag = found.option.flag.lstrip("-").replace("-", "_")
        if is_flag:
            flags.setdefault(flag, found)
        if not found.groups:
            names.setdefault(found.option.name, Keyword((), found.option))
    keywords = {**names, **flags}
    for name, several in groups.items():
        if len(several) == 1:
            own, group = keywords.get(name, Keyword()), several[0]
            keywords[name] = Keyword(
                own.groups, own.option, own.has_flag_unit, group.group, group.group_place
            )
    return keywords


def _walk(
    cls: type, groups: tuple[str, ...], file_only: tuple[str, ...] = ()
) -> Iterator[tuple[Keyword, bool]]:
    """Every option and group, and whether the command line has a flag for it."""
    for field in options_of(cls):
        yield (
            Keyword(groups, field, True),
            not field.option.argument and field.name not in file_only,
        )
    for part in groups_of(cls):
        place = (*groups, part.name)
        yield Keyword(group=part.group, group_place=place), True
        yield from _walk(part.group.kind, place, part.group.file_only)


def recipe_values(cls: type, given: Mapping[str, Any], command: str = "engine") -> dict[str, Any]:
    """Return keyword arguments as values of a recipe, group by group; see `trtbuild.options.tables.make`.

    Args:
        cls: the recipe's dataclass.
        given: name -> value; texts are read as on the command line, numbers are in the flag's unit.
        command: whose options these are.

    Raises:
        OptionError: there is no such option (the nearest is named), or a value of a wrong type or range.
    """
    known = keywords_of(cls)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise OptionError(f"there is no option '{name}'{_nearest(name, known, command)}.")
        if value is not None:
            values = merge(values, _placed(name, known[name], value))
    return values


def _nearest(name: str, known: Mapping[str, Keyword], command: str) -> str:
    parts = name.replace("-", "_")
    holding = next((one for one in known if parts in one or one in parts), None)
    like = did_you_mean(name, known) or (holding and did_you_mean(holding, [holding]))
    return like or f"; trtbuild {command} --help-all has all"


def _placed(name: str, keyword: Keyword, value: Any) -> dict[str, Any]:
    group = keyword.group
    if group is not None and _is_whole(keyword, value):
        return _nested(keyword.group_place, _group_values(name, group, value))
    assert keyword.option is not None
    read = _value(name, keyword, value)
    return _nested(keyword.groups, {keyword.option.name: read})


def _is_whole(keyword: Keyword, value: Any) -> bool:
    """Whether a value is of the group of this name, and not of the option."""
    if keyword.option is None or keyword.group is None:
        return keyword.option is None
    if isinstance(value, keyword.group.kind):
        return True
    return isinstance(value, MappingType) and not keyword.option.option.takes_objects


def _nested(groups: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(groups):
        values = {name: values}
    return values


def _group_values(name: str, group: Group, value: Any) -> dict[str, Any]:
    if isinstance(value, group.kind):
        return {field.name: getattr(value, field.name) for field in fields(group.kind)}
    if isinstance(value, MappingType):
        return read_table(group.kind, dict(value), name)
    if isinstance(value, bool) and group.switch:
        return {ENABLED: value}
    if isinstance(value, str | Path) and group.from_file:
        return read_file(group.kind, Path(value), group.title.lower())
    kinds = [f"a {group.kind.__name__}", "a dict"]
    kinds += ["True or False"] if group.switch else []
    kinds += ["the path of a TOML file"] if group.from_file else []
    raise OptionError(f"'{name}' is {', '.join(kinds[:-1])} or {kinds[-1]}, not {value!r}.")


def _value(name: str, keyword: Keyword, value: Any) -> Any:
    field = keyword.option
    assert field is not None
    if field.option.takes_objects and not isinstance(value, str | Path):
        return value
    try:
        if isinstance(value, Path) and field.type is not Path:
            value = str(value)
        if isinstance(value, str):
            return read_text(field, value)
        if field.kind is Kind.NAMED and isinstance(value, int | float):
            return read_text(field, str(value))
        unit = field.option.flag_unit
        if keyword.has_flag_unit and unit is not None and not isinstance(value, bool):
            value = float(value) / unit[1]
        return convert(field, _plain(field, value))
    except (ValueError, TypeError) as error:
        raise OptionError(f"'{name}' {str(error).rstrip('.')}.") from error


def _plain(field: OptionField, value: Any) -> Any:
    """NumPy's numbers and paths in lists as what `convert` reads."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if field.kind is Kind.SEVERAL and isinstance(value, list | tuple):
        return [
            str(item) if isinstance(item, Path) and field.type is str else item for item in value
        ]
    return value
