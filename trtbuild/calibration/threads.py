"""Workers in threads, fed from one iterator; the first error ends them all."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

__all__ = ["Worker", "run_in_threads"]

Item = TypeVar("Item")
Taken_contra = TypeVar("Taken_contra", contravariant=True)

# Items read ahead for each thread.
_AHEAD = 2


class Worker(Protocol[Taken_contra]):
    """Does the work of one thread."""

    def take(self, item: Taken_contra) -> None:
        """Work on an item, or put it off."""
        ...

    def finish(self) -> None:
        """Do what has been put off; there are no more items."""
        ...


def run_in_threads(
    workers: Sequence[Worker[Item]], items: Iterable[Item]
) -> Generator[Item, None, None]:
    """Hand every item to one of `workers`, each called by one thread only; yield each item given.

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
        yield from _shared_out(items, mine, queue, len(others), errors)
        if not errors:
            mine.finish()
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _shared_out(
    items: Iterable[Item],
    mine: Worker[Item],
    queue: SimpleQueue[Item | None],
    num_others: int,
    errors: list[BaseException],
) -> Iterator[Item]:
    """Queue items and, when there are enough in the queue, work on one; at the end tell the others."""
    try:
        for item in items:
            if errors:
                break
            if queue.qsize() < _AHEAD * num_others:
                queue.put(item)
            else:
                mine.take(item)
            yield item
    except BaseException as error:
        errors.append(error)  # what is still queued is not worth doing
        raise
    finally:
        for _ in range(num_others):
            queue.put(None)


def _work(
    worker: Worker[Item],
    queue: SimpleQueue[Item | None],
    errors: list[BaseException],
) -> None:
    """Work on items until there are no more; after an error, only take them away."""
    try:
        while (item := queue.get()) is not None:
            if not errors:
                worker.take(item)
        if not errors:
            worker.finish()
    except BaseException as error:  # noqa: BLE001 - handed to the calling thread
        errors.append(error)
