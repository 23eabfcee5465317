"""The smallest set of groups that explains a failure: in float, the network passes; less, it fails.

With the groups in some order, binary search finds the shortest prefix that, in float, lets the network
pass; its last group is to blame for certain (without it the network fails). It is put into the result
and stays float, and the search goes on among the groups before it, until the result alone passes. For
k groups of n this takes about ``2 + k (1 + log2 n)`` evaluations, and k more to confirm.

That the result is minimal rests on one thing: more groups in float never turn a pass into a fail. It
is therefore checked at the end, group by group, and what can go goes.

Source: dichotomic search for minimal sets over a monotone predicate (Hemery, Lecoutre, Sais and
Boussemart, "Extracting MUCs from constraint networks", ECAI 2006); the question is that of Zeller's
delta debugging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbuild.progress import Progress

__all__ = ["Culprits", "find_culprits"]


@dataclass(frozen=True)
class Culprits:
    """What bisecting found.

    Attributes:
        groups: the minimal set, in the order of the search; empty when nothing fails, or when the
            network fails even with every group in float.
        passes_quantized: whether the network passes as it is.
        passes_float: whether it passes with every group in float.
        num_evaluations: how often the network was run.
    """

    groups: tuple[str, ...]
    passes_quantized: bool
    passes_float: bool
    num_evaluations: int


def find_culprits(
    groups: Sequence[str],
    passes: Callable[[frozenset[str]], bool],
    progress: Progress = silent,
) -> Culprits:
    """Find a minimal set of groups that must be float for the network to pass.

    Args:
        groups: names; put the least suspicious first, if anything is known.
        passes: runs the network with these groups in float.
        progress: told of every run.
    """
    known: dict[frozenset[str], bool] = {}

    def test(names: Sequence[str]) -> bool:
        key = frozenset(names)
        if key not in known:
            known[key] = passes(key)
            progress("bisect", len(known), None)
        return known[key]

    if test(()):
        return Culprits((), passes_quantized=True, passes_float=True, num_evaluations=len(known))
    if not test(groups):
        return Culprits((), passes_quantized=False, passes_float=False, num_evaluations=len(known))
    found: list[str] = []
    remaining = list(groups)
    while not test(found):
        end = _shortest_prefix(remaining, lambda prefix: test([*found, *prefix]))
        found.append(remaining[end - 1])
        remaining = remaining[: end - 1]
    for name in list(found):
        rest = [other for other in found if other != name]
        if test(rest):
            found = rest
    return Culprits(
        tuple(found), passes_quantized=False, passes_float=True, num_evaluations=len(known)
    )


def _shortest_prefix(items: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> int:
    """Length of the shortest prefix that passes; all of `items` is known to pass, none to fail."""
    fails, passed = 0, len(items)
    while passed - fails > 1:
        middle = (fails + passed) // 2
        if passes(items[:middle]):
            passed = middle
        else:
            fails = middle
    return passed
