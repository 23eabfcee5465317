"""Finds small sets of groups that have to be float for the network to pass.

Both functions search for the shortest prefix of groups that passes in float. For a budget
(`fewest_in_order`) it is known which groups gain most: the result is the shortest prefix of that order,
without groups that are not needed.

For bisecting (`find_culprits`) nothing need be known: the groups may have any order. Binary search finds
the shortest prefix that lets the network pass in float. Its last group is certainly at fault, as the network
fails without it. This group is added to the result and stays float, and the search continues among the
groups before it, until the result alone passes. For k groups of n this takes about ``2 + k (1 + log2 n)``
evaluations, and k more to confirm.

The result is minimal only if more groups in float never turn a pass into a fail. So each group is checked at
the end, and removed if the network passes without it.

Source: dichotomic search for minimal sets over a monotone predicate (Hemery, Lecoutre, Sais and
Boussemart, "Extracting MUCs from constraint networks", ECAI 2006); the question is that of Zeller's
delta debugging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbuild.progress import Progress

_T = TypeVar("_T")

__all__ = ["Culprits", "affordable", "fewest_in_order", "find_culprits", "shortest_prefix"]


@dataclass(frozen=True)
class Culprits:
    """The result of bisecting.

    Attributes:
        groups: the minimal set, in the order in which groups were found; empty if the network passes
            unchanged, or fails even with every group in float.
        passes_quantized: whether the network passes unchanged.
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
        groups: names; the least suspicious first, if anything is known.
        passes: runs the network with these groups in float.
        progress: told of every run.
    """
    known: dict[frozenset[str], bool] = {}

    def test(names: Sequence[str]) -> bool:
        """Return whether the network passes with `names` in float; runs once per set."""
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
        middle = max(len(remaining) // 2, 1)
        end = shortest_prefix(remaining, lambda prefix: test([*found, *prefix]), first=middle)
        assert end is not None  # all that remains is known to pass
        found.append(remaining[end - 1])
        remaining = remaining[: end - 1]
    return Culprits(
        tuple(_without_needless(found, found, test)),
        passes_quantized=False,
        passes_float=True,
        num_evaluations=len(known),
    )


def affordable(ranked: Sequence[str], costs: Mapping[str, float], share: float) -> list[str]:
    """Return the first groups of `ranked` that cost at most `share` together, skipping too costly ones.

    If they are ranked by what they gain for these costs, a larger share never gains less: the first group
    that only the larger one takes gains more than all that the smaller one has room for instead.
    """
    kept, spent = [], 0.0
    for name in ranked:
        if spent + costs[name] <= share:
            kept.append(name)
            spent += costs[name]
    return kept


def fewest_in_order(
    ranked: Sequence[str],
    passes: Callable[[Sequence[str]], bool],
    costs: Mapping[str, float],
) -> list[str] | None:
    """Return the shortest prefix of `ranked` that passes in float, without groups that are not needed.

    The costliest groups are tried first for removal.

    Args:
        ranked: names, the most useful first; with none of them in float the network does not pass.
        passes: runs the network with these groups in float.
        costs: the cost of each group.

    Returns:
        The names, or None if not even all of them suffice.
    """
    length = shortest_prefix(ranked, passes)
    if length is None:
        return None
    kept = ranked[:length]
    # the last one is needed: without it, the prefix was tried and did not pass
    costliest = sorted(kept[:-1], key=lambda name: -costs[name])
    return _without_needless(kept, costliest, passes)


def shortest_prefix(
    items: Sequence[_T], passes: Callable[[Sequence[_T]], bool], first: int = 1
) -> int | None:
    """Return the length of the shortest prefix that passes; None if all fail.

    The length is doubled from `first` until a prefix passes; binary search follows.
    """
    fails, tried = 0, first
    while not passes(items[:tried]):
        if tried >= len(items):
            return None
        fails, tried = tried, tried * 2
    passed = min(tried, len(items))
    while passed - fails > 1:
        middle = (fails + passed) // 2
        if passes(items[:middle]):
            passed = middle
        else:
            fails = middle
    return passed


def _without_needless(
    kept: Sequence[str], candidates: Sequence[str], passes: Callable[[Sequence[str]], bool]
) -> list[str]:
    """`kept` without those of `candidates`, tried in turn, without which it still passes."""
    left = list(kept)
    for name in list(candidates):
        fewer = [other for other in left if other != name]
        if passes(fewer):
            left = fewer
    return left
