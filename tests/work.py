"""How much work a piece of code is, counted so that no noise of the machine gets in."""

from __future__ import annotations

import cProfile
import pstats
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["num_calls"]


def num_calls(function: Callable[..., object], *arguments: object) -> int:
    """Function calls, and steps of generators, that one call of `function` makes."""
    profile = cProfile.Profile()
    profile.runcall(function, *arguments)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined, no-any-return]
