"""Bisecting finds minimal sets in few evaluations, also if the predicate is not monotone."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from trtbuild.search.bisect import find_culprits


@settings(max_examples=200)
@given(st.integers(1, 40), st.data())
def test_exactly_the_planted_groups_are_found_in_few_evaluations(n: int, data) -> None:
    planted = data.draw(st.sets(st.integers(0, n - 1), max_size=4))
    found = find_culprits([str(i) for i in range(n)], lambda s: {str(i) for i in planted} <= s)
    assert set(found.groups) == {str(i) for i in planted}
    k = len(planted)
    # per culprit a binary search and one test of the set so far; two at the start; k to confirm
    assert found.num_evaluations <= 2 + k * (2 + math.ceil(math.log2(max(n, 2)))) + k


def test_every_pair_among_thirty_groups_takes_at_most_25_evaluations() -> None:
    groups = [str(i) for i in range(30)]
    for pair in itertools.combinations(groups, 2):
        found = find_culprits(groups, lambda s, pair=pair: set(pair) <= s)
        assert set(found.groups) == set(pair)
        assert found.num_evaluations <= 25


def test_a_passing_network_has_no_culprits() -> None:
    found = find_culprits(["a", "b"], lambda s: True)
    assert (found.groups, found.passes_quantized, found.num_evaluations) == ((), True, 1)


def test_a_failing_float_network_is_reported() -> None:
    found = find_culprits(["a", "b"], lambda s: False)
    assert (found.groups, found.passes_float) == ((), False)


def test_a_set_that_is_not_minimal_is_reduced() -> None:
    # passes with "b" alone, but not with both: more float is not always better
    def passes(s: frozenset[str]) -> bool:
        return s == {"b"} or s >= {"a", "b", "c"}

    found = find_culprits(["a", "b", "c"], passes)
    assert passes(frozenset(found.groups))
    for name in found.groups:
        assert not passes(frozenset(found.groups) - {name})
