"""The list of promised places is up to date; every night each of them is broken, and a test notices."""

from __future__ import annotations

import pytest

from tools.mutate import PLACES, main, problems_of


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.file}: {place.text}")
def test_the_place_is_there(place):
    assert problems_of(place) == []


@pytest.mark.nightly
def test_every_change_is_seen(capsys):
    assert main([]) == 0, capsys.readouterr().out
