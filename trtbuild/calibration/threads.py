"""Workers in threads, fed from one iterator; the first error ends them all."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["run_in_threads"]

Item = TypeVar("Item")

# Items read ahead for each thread.
_AHEAD = 2


def run_in_threads(
    workers: Sequence[Callable[[Item], None]], items: Iterable[Item]
) -> Iterator[None]:
    """Give every item to one of `workers`, each called by one thread only; yield per item read.

    Items are read in the calling thread, which readers may depend on. When the other threads have
    enough to do, it works as well: there are no more threads than workers, which would push each
    other from core to core and out of the caches.

    Raises:
        BaseException: the first error of a worker or of `items`, once all threads have ended.
    """
    mine, *others = workers
    queue: SimpleQueue[Item | None] = SimpleQueue()
    errors: list[BaseException] = []
    threads = [threading.Thread(target=_work, args=(w, queue, errors), daemon=True) for w in others]
    for thread in threads:
        thread.start()
    try:
        for item in items:
            if errors:
                break
            if queue.qsize() < _AHEAD * len(others):
                queue.put(item)
            else:
                mine(item)
            yield
    except BaseException as error:
        errors.append(error)  # what is still queued is not worth doing
        raise
    finally:
        for _ in threads:
            queue.put(None)
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _work(
    worker: Callable[[Item], None],
    queue: SimpleQueue[Item | None],
    errors: list[BaseException],
) -> None:
    """Work on items until there are no more; after an error, only take them away."""
    while (item := queue.get()) is not None:
        if not errors:
            try:
                worker(item)
            except BaseException as error:  # noqa: BLE001 - handed to the calling thread
                errors.append(error)
