"""The amount of work of a piece of code, counted independently of the machine's noise."""

from __future__ import annotations

import cProfile
import pstats
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["num_calls"]


def num_calls(function: Callable[..., object], *arguments: object) -> int:
    """Number of function calls and generator steps in one call of `function`."""
    profile = cProfile.Profile()
    profile.runcall(function, *arguments)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined, no-any-return]
