"""Control of Python's cyclic garbage collector: graphs are built while it is off.

The collector scans the living objects again and again while their number grows. A graph of 20,000 nodes is
two million objects, none of them garbage: scanning would take a third of the time to read and rewrite the
graph.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["all_made_stays", "collector_at_rest", "collector_on_new_objects"]

# About the objects of a few graphs of a small network. A graph that is tried and thrown away is freed by the
# next young collection; with Python's default of 700 objects it would be in the oldest generation by then,
# which only a full collection frees.
_NEW_OBJECTS = 50_000


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Turn the collector off in the block; for code that builds graphs and throws little away."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def all_made_stays() -> Iterator[None]:
    """Turn the collector off in the block, then move the block's objects to the oldest generation.

    For imports, and for what a job builds to keep. A collector that is just turned on again scans all new
    objects; objects of the oldest generation wait for one of the rare full collections.
    """
    with collector_at_rest():
        yield
        if not gc.get_freeze_count():  # `unfreeze` would also release what others have frozen
            gc.freeze()
            gc.unfreeze()  # into the oldest generation, without a scan


@contextlib.contextmanager
def collector_on_new_objects() -> Iterator[None]:
    """Exclude the objects that exist before the block from collections; for a job that makes many graphs.

    The modules of a job are more than a hundred thousand objects; one scan of them takes about 0.07 s. In
    the block the collector also runs less often: after `_NEW_OBJECTS` new objects.
    """
    before = gc.get_threshold()
    # by a caller, and for longer; an outer block of ours shows in the threshold, and counting takes 0.01 s
    if before[0] == _NEW_OBJECTS or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    if 0 < before[0] < _NEW_OBJECTS:  # 0: somebody has turned it off
        gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
