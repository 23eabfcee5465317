"""Workers in threads, fed from one iterator; the first error ends them all."""

from __future__ import annotations

import threading
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["run_in_threads"]

Item = TypeVar("Item")

# Seconds after which a waiting thread looks whether another has failed.
_PATIENCE = 0.1


def run_in_threads(
    workers: Sequence[Callable[[Item], None]], items: Iterable[Item]
) -> Iterator[None]:
    """Give every item to one of `workers`, each called by a thread of its own; yield per item read.

    Items are read in the calling thread, at most two per worker ahead, so that memory stays bounded
    and reading overlaps with work.

    Raises:
        BaseException: the first error of a worker or of `items`, once all threads have ended.
    """
    queue: Queue[Item | None] = Queue(2 * len(workers))
    errors: list[BaseException] = []
    threads = [
        threading.Thread(target=_work, args=(w, queue, errors), daemon=True) for w in workers
    ]
    for thread in threads:
        thread.start()
    try:
        for item in items:
            while not errors and not _put(queue, item):
                pass
            if errors:
                break
            yield
    finally:
        _end(threads, queue, errors)
    if errors:
        raise errors[0]


def _put(queue: Queue[Item | None], item: Item | None) -> bool:
    try:
        queue.put(item, timeout=_PATIENCE)
    except Full:
        return False
    return True


def _work(
    worker: Callable[[Item], None], queue: Queue[Item | None], errors: list[BaseException]
) -> None:
    while True:
        item = queue.get()
        if item is None or errors:
            return
        try:
            worker(item)
        except BaseException as error:  # noqa: BLE001 - handed to the calling thread
            errors.append(error)
            return


def _end(
    threads: Sequence[threading.Thread], queue: Queue[Item | None], errors: list[BaseException]
) -> None:
    """Let every thread finish what is queued, or drop that when one has failed."""
    if errors:
        while True:
            try:
                queue.get_nowait()
            except Empty:
                break
    for _ in threads:
        while any(thread.is_alive() for thread in threads) and not _put(queue, None):
            pass
    for thread in threads:
        thread.join()
