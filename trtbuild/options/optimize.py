"""Which graph passes run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtbuild.options.fields import option
from trtbuild.plugins import PASS

__all__ = ["OptimizeOptions"]


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """What to do to a graph.

    Attributes:
        passes: passes of your own (`trtbuild.passes.Pass`); they run after the shipped ones of a round.
        sizes: sizes of symbolic dims to compare at, one mapping of name to size per comparison;
            empty: a few small sizes that the network takes.
    """

    enable: Sequence[str] = option(
        (),
        "Run this opt-in pass, or one of your own (module:class), as well. Repeatable.",
        metavar="PASS",
        separator=",",
        plugin=PASS,
    )
    disable: Sequence[str] = option(
        (), "Do not run this pass. Repeatable.", metavar="PASS", separator=","
    )
    only: Sequence[str] = option(
        (),
        "Run this pass and nothing else. Repeatable.",
        metavar="PASS",
        separator=",",
        plugin=PASS,
    )
    passes: Sequence[Any] = ()
    check: bool = option(
        True, "Compare the result with the original on random inputs, and undo what differs."
    )
    seed: int = option(0, "Of the compared inputs.")
    sizes: Sequence[Mapping[str, int]] = field(default_factory=tuple)
    max_rounds: int = option(100, "Maximum rounds of the default passes.", low=1)
