"""The objects that Python's garbage collector examines."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from trtbuild.model.collecting import all_made_stays, collector_on_new_objects

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_passed_over() -> Iterator[None]:
    """Unfreeze all objects, as in a process without tests (`tests/conftest.py` freezes them)."""
    gc.unfreeze()
    yield
    gc.freeze()


class Itself:
    """An object that refers to itself, as graphs do."""

    def __init__(self) -> None:
        self.itself = self


def test_a_jobs_own_garbage_is_found_and_what_was_there_before_is_passed_over() -> None:
    old = Itself()
    kept = weakref.ref(old)
    with contextlib.suppress(KeyError), collector_on_new_objects():
        new = weakref.ref(Itself())
        del old
        with collector_on_new_objects():  # a job within a job
            gc.collect()
        assert new() is None
        assert kept() is not None
        raise KeyError
    gc.collect()
    assert kept() is None


def test_what_is_thrown_away_in_a_job_does_not_become_old() -> None:
    before = gc.get_threshold()
    with collector_on_new_objects():
        new = Itself()
        gone = weakref.ref(new)
        others = [
            [number] for number in range(20_000)
        ]  # many times the default threshold of a collection
        del new
        gc.collect(0)  # of the youngest generation only
        assert gone() is None
        assert others
    assert gc.get_threshold() == before


def test_a_collector_that_is_off_stays_off() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(0)
        with collector_on_new_objects():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_what_stays_is_old_without_a_look_at_it() -> None:
    looks: list[str] = []

    def look(phase: str, _: object) -> None:
        looks.append(phase)

    gc.callbacks.append(look)
    try:
        with all_made_stays():
            made = [[number] for number in range(200_000)]
        new = [made]
        assert not looks
        old = {id(one) for one in gc.get_objects(generation=2)}
        assert id(made[0]) in old
        assert id(new) not in old
    finally:
        gc.callbacks.remove(look)


def test_garbage_among_what_stays_is_found() -> None:
    with all_made_stays():
        gone = weakref.ref(Itself())
    gc.collect()
    assert gone() is None
    assert gc.isenabled()
