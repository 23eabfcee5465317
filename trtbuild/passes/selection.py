"""Which passes run: the defaults, what the user switches, and passes of other packages."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.passes.catalogue import aliases_of
from trtbuild.passes.default_passes import shipped_passes
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trtbuild.options.optimize import OptimizeOptions

__all__ = ["ENTRY_POINT_GROUP", "all_passes", "check_passes", "select"]

ENTRY_POINT_GROUP = "trtbuild.graph_passes"
"""Group of entry points; each names a `Pass` subclass of another package."""


def all_passes(extra: Iterable[Pass] = ()) -> list[Pass]:
    """Return every pass: those of trtbuild, those of installed packages, and `extra`.

    Raises:
        OptionError: an entry point cannot be loaded, or two passes have one name.
    """
    passes = [*shipped_passes(), *_installed_passes(), *extra]
    taken: set[str] = set()
    for item in passes:
        if item.name in taken:
            raise OptionError(f"two graph passes are called '{item.name}'. Rename one of them.")
        taken |= _called(item)
    return passes


def _called(item: Pass) -> set[str]:
    """Return every name by which a user may mean `item`."""
    return {item.name, *aliases_of(item.name).values()}


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

    A pass is meant by its name and by those of `catalogue`; a name means its parts, too:
    ``TransformOnnxPad`` means ``TransformOnnxPad.opset`` as well.

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


def check_passes(options: OptimizeOptions) -> None:
    """Check that every pass that `options` name is there.

    Raises:
        OptionError: one is not; or see `all_passes`.
    """
    passes = all_passes(options.passes)
    select(passes, enable=options.enable, disable=options.disable, only=options.only)


def _expand(passes: Sequence[Pass], names: Iterable[str]) -> set[str]:
    """Return our names of the passes that are meant by `names`."""
    called = {word: item.name for item in passes for word in _called(item)}
    found: set[str] = set()
    for name in names:
        meant = {
            ours for word, ours in called.items() if word == name or word.startswith(f"{name}.")
        }
        if not meant:
            close = difflib.get_close_matches(name, called, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else " See trtbuild optimize --list."
            raise OptionError(f"there is no graph pass '{name}'.{hint}")
        found |= meant
    return found
