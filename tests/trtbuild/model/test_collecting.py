"""What Python's collector looks at."""

from __future__ import annotations

import contextlib
import gc
import weakref

from trtbuild.model.collecting import collector_on_new_objects


class Itself:
    """An object that holds itself, as graphs do."""

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
