"""When Python's cyclic garbage collector runs, and what it looks at: graphs are built without it.

It walks through every object that lives, again and again while there are more of them. A graph of 20,000
nodes is two million objects of which none is garbage: a third of the time that reading and rewriting it
takes would go there.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["all_made_stays", "collector_at_rest", "collector_on_new_objects"]

# Some graphs of a small network. One that is tried and thrown away is gone in the collection after; with the
# 700 objects that are Python's default it would have become old by then, and all old objects are looked
# through to find such garbage.
_NEW_OBJECTS = 50_000


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Leave garbage where it is in the block; around what builds graphs and throws little away."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def all_made_stays() -> Iterator[None]:
    """Leave the collector at rest in the block, and what the block makes out of its way afterwards.

    For imports, and what a job builds to keep. A collector that comes back looks at all that is new; what was
    made here is old by then, and waits for one of the rare times when everything is looked at.
    """
    with collector_at_rest():
        yield
        if not gc.get_freeze_count():  # nobody else's is let go
            gc.freeze()
            gc.unfreeze()  # all at once, without a look at any


@contextlib.contextmanager
def collector_on_new_objects() -> Iterator[None]:
    """Let the collector pass over what lives before the block; around a job that makes many graphs.

    The modules of a job are more than a hundred thousand objects: looking through them takes some 0.07 s. In
    the block the collector runs when there are many new objects, and not so often.
    """
    if gc.get_freeze_count():  # by who called us, and for longer
        yield
        return
    before = gc.get_threshold()
    gc.freeze()
    if 0 < before[0] < _NEW_OBJECTS:  # 0: somebody has turned it off
        gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
