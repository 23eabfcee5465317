"""Write the types of the keyword arguments of `trtbuild.build`, from the options of its recipe.

Usage: ``python tools/write_build_options.py > trtbuild/api/build_options.py``; a test holds the file to them.
"""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.options.fields import Kind
from trtbuild.options.keywords import keywords_of
from trtbuild.recipes import EngineRecipe

if TYPE_CHECKING:
    from trtbuild.options.fields import OptionField
    from trtbuild.options.keywords import Keyword

__all__ = ["build_options"]

_HEAD = '''\
"""The keyword arguments of `trtbuild.build` and `trtbuild.quantize`, for editors and type checkers.

Made from the options of the recipe by ``python tools/write_build_options.py``; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

__all__ = ["BuildOptions"]

BuildOptions = TypedDict(  # noqa: UP013 - one of them is called float
    "BuildOptions",
    {
'''

_TAIL = '''\
    },
    total=False,
)
"""Name -> type; ``trtbuild engine --help-all`` says what each does."""
'''

_GIVEN_APART = {"model", "data", "export", "source"}


def build_options() -> str:
    """Return the text of the file."""
    known = keywords_of(EngineRecipe)
    lines = [
        f'        "{name}": {_type(known[name])},'
        for name in sorted(known)
        if name not in _GIVEN_APART
    ]
    return _HEAD + "\n".join(lines) + "\n" + _TAIL


def _type(keyword: Keyword) -> str:
    field = keyword.option
    if field is None or keyword.group is not None:
        return "Any"  # a group: its dataclass or a dict, and, if it has them, its switch or file
    if field.option.takes_objects:
        return "Any"
    one = _one(field)
    if field.kind is Kind.SEVERAL:
        return f"Sequence[{one}] | str"
    if field.kind is Kind.NAMED:
        return "Mapping[str, Any] | Sequence[str] | str | float"
    return one


def _one(field: OptionField) -> str:
    if field.type is Path:
        return "Any"  # str or os.PathLike
    if issubclass(field.type, enum.Enum):
        return "str"
    plain = {bool: "bool", int: "int | str", float: "float | str", str: "str"}
    return plain.get(field.type, "Any")


if __name__ == "__main__":
    sys.stdout.write(build_options())
