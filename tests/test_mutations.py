"""The list of promised places is up to date; every night each is changed, and a test must notice."""

from __future__ import annotations

import pytest

from tools.mutate import PLACES, copy_of_project, is_seen, problems_of


def title(place):
    return f"{place.file}: {place.text}"


def test_each_place_exists_exactly_once():
    assert [problem for place in PLACES for problem in problems_of(place)] == []


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_of_project(tmp_path_factory.mktemp("copy"))


@pytest.mark.nightly
@pytest.mark.parametrize("place", PLACES, ids=title)
def test_every_change_is_seen(project, place):
    assert is_seen(place, project), place.replacement
