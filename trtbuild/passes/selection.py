"""Which passes run: the defaults, what the user switches, and passes of other packages."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.passes.default_passes import shipped_passes
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ENTRY_POINT_GROUP", "all_passes", "select"]

ENTRY_POINT_GROUP = "trtbuild.graph_passes"
"""Group of entry points; each names a `Pass` subclass of another package."""


def all_passes(extra: Iterable[Pass] = ()) -> list[Pass]:
    """Return every pass: those of trtbuild, those of installed packages, and `extra`.

    Raises:
        OptionError: an entry point cannot be loaded, or two passes have one name.
    """
    passes = [*shipped_passes(), *_installed_passes(), *extra]
    names: set[str] = set()
    for item in passes:
        if item.name in names:
            raise OptionError(f"two graph passes are called '{item.name}'. Rename one of them.")
        names.add(item.name)
    return passes


def _installed_passes() -> list[Pass]:
    passes = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            made = point.load()()
        except Exception as error:  # somebody else's code may raise anything
            raise OptionError(
                f"the graph pass '{point.value}' cannot be loaded: {error}. "
                f"Mend or uninstall the package that brings it."
            ) from error
        if not isinstance(made, Pass):
            raise OptionError(f"the entry point '{point.value}' is no trtbuild.passes.Pass.")
        passes.append(made)
    return passes


def select(
    passes: Sequence[Pass],
    *,
    enable: Iterable[str] = (),
    disable: Iterable[str] = (),
    only: Iterable[str] = (),
) -> tuple[list[Pass], list[Pass]]:
    """Return the passes that run to the fixpoint, and the opt-in passes that run once.

    A name means the pass and its parts: ``TransformOnnxPad`` means ``TransformOnnxPad.opset`` too.

    Args:
        passes: all passes.
        enable: opt-in passes to run.
        disable: passes not to run.
        only: run these and no others, opt-in or not; empty: all defaults.

    Raises:
        OptionError: a name is not known.
    """
    on, off, sole = (_expand(passes, names) for names in (enable, disable, only))
    wanted = (
        [item for item in passes if item.name in sole | on]
        if sole
        else [item for item in passes if not item.opt_in or item.name in on]
    )
    kept = [item for item in wanted if item.name not in off]
    return [item for item in kept if not item.opt_in], [item for item in kept if item.opt_in]


def _expand(passes: Sequence[Pass], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        matching = {p.name for p in passes if p.name == name or p.name.startswith(f"{name}.")}
        if not matching:
            close = difflib.get_close_matches(name, [p.name for p in passes], n=1)
            hint = f" Did you mean '{close[0]}'?" if close else " See trtbuild optimize --list."
            raise OptionError(f"there is no graph pass '{name}'.{hint}")
        found |= matching
    return found
