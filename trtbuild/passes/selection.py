"""Selects the passes to run: defaults, the user's switches, and passes of other packages."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.passes.catalogue import aliases_of
from trtbuild.passes.default_passes import shipped_passes
from trtbuild.passes.pass_base import Pass
from trtbuild.plugins import PASS, foreign_code, load, load_installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trtbuild.options.optimize import OptimizeOptions

__all__ = ["all_passes", "check_passes", "chosen_passes", "select"]


def all_passes(extra: Iterable[Pass] = ()) -> list[Pass]:
    """Return every pass: those of trtbuild, those of installed packages, and `extra`.

    Raises:
        OptionError: an entry point cannot be loaded, or two passes have the same name.
    """
    found = load_installed(PASS, OptionError)
    passes = [*shipped_passes(), *(_made(what, name) for name, what in found.items()), *extra]
    taken: set[str] = set()
    for item in passes:
        if item.name in taken:
            raise OptionError(f"two graph passes are called '{item.name}'. Rename one of them.")
        taken |= _called(item)
    return passes


def _made(what: Any, name: str) -> Pass:
    """The pass that a user's class or object gives."""
    with foreign_code(OptionError, f"the graph pass '{name}' cannot be made: "):
        made = what() if isinstance(what, type) else what
    if not isinstance(made, Pass):
        raise OptionError(f"'{name}' is no trtbuild.passes.Pass.")
    return made


def _called(item: Pass) -> set[str]:
    """Return every name of `item`, here and in other tools."""
    return {item.name, *aliases_of(item.name).values()}


def select(
    passes: Sequence[Pass],
    *,
    enable: Iterable[str] = (),
    disable: Iterable[str] = (),
    only: Iterable[str] = (),
) -> tuple[list[Pass], list[Pass]]:
    """Return the passes that run to the fixpoint, and the opt-in passes that run once.

    A pass has its own name and those of `catalogue`. A name includes its parts: ``TransformOnnxPad`` means
    ``TransformOnnxPad.opset`` as well.

    Args:
        passes: all passes.
        enable: opt-in passes to run.
        disable: passes not to run.
        only: run these and no others, opt-in or not; empty: all defaults.

    Raises:
        OptionError: a name is unknown.
    """
    on, off, sole = (_expand(passes, names) for names in (enable, disable, only))
    wanted = (
        [item for item in passes if item.name in sole | on]
        if sole
        else [item for item in passes if not item.opt_in or item.name in on]
    )
    kept = [item for item in wanted if item.name not in off]
    return [item for item in kept if not item.opt_in], [item for item in kept if item.opt_in]


def chosen_passes(options: OptimizeOptions) -> tuple[list[Pass], list[Pass]]:
    """Return what `select` does for options, which may name the user's own passes as ``module:class``.

    Raises:
        OptionError: a pass is unknown, or cannot be imported; see also `all_passes`.
    """
    own = {
        name: _made(load(PASS, name, OptionError), name)
        for name in dict.fromkeys((*options.enable, *options.only))
        if ":" in name
    }

    def names(given: Iterable[str]) -> list[str]:
        return [own[name].name if name in own else name for name in given]

    return select(
        all_passes([*options.passes, *own.values()]),
        enable=names(options.enable),
        disable=options.disable,
        only=names(options.only),
    )


def check_passes(options: OptimizeOptions) -> None:
    """Check that every pass that `options` name exists.

    Raises:
        OptionError: one does not; see also `all_passes`.
    """
    chosen_passes(options)


def _expand(passes: Sequence[Pass], names: Iterable[str]) -> set[str]:
    """Return the names here of the passes that `names` mean."""
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
