"""Work in threads: all items are done, postponed or not, and errors are raised."""

from __future__ import annotations

import threading

import pytest

from tests.command import HANGS_S
from trtbuild.calibration.observe import run_in_threads


class Adder:
    """Adds up numbers, some of them only at the end."""

    def __init__(self, refuses=None, ahead=2):
        self.total, self.threads, self._waiting = 0, set(), []
        self._refuses, self._ahead = refuses, ahead

    def items_ahead(self, item):
        return self._ahead

    def take(self, item):
        if item == self._refuses:
            raise ValueError(f"{item} is refused")
        self.threads.add(threading.get_ident())
        self._waiting.append(item)
        if len(self._waiting) == 3:
            self._add()

    def finish(self):
        self.threads.add(threading.get_ident())
        if self._refuses == "the end":
            raise ValueError("the end is refused")
        self._add()

    def _add(self):
        self.total += sum(self._waiting)
        self._waiting.clear()


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("num_items", [0, 1, 100])
def test_every_item_is_worked_on_once(num_threads, num_items):
    workers = [Adder() for _ in range(num_threads)]
    given = list(run_in_threads(workers, range(1, num_items + 1)))
    assert given == list(range(1, num_items + 1))
    assert sum(worker.total for worker in workers) == sum(given)
    # each by one thread, with its postponed items
    assert all(len(worker.threads) == 1 for worker in workers)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("refused", [7, "the end"])
def test_the_error_of_a_worker_comes_out(num_threads, refused):
    before = set(threading.enumerate())
    workers = [Adder(refused) for _ in range(num_threads)]
    with pytest.raises(ValueError, match=f"{refused} is refused"):
        list(run_in_threads(workers, range(1000)))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_error_of_the_items_comes_out(num_threads):
    def items():
        yield from range(20)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(run_in_threads([Adder() for _ in range(num_threads)], items()))


def test_nothing_is_left_running_when_the_caller_stops():
    before = set(threading.enumerate())
    given = run_in_threads([Adder() for _ in range(3)], iter(int, 1))
    next(given)
    given.close()
    assert set(threading.enumerate()) <= before


class Fast(Adder):
    """Says when it has taken `num_items`."""

    def __init__(self, num_items):
        super().__init__()
        self.num_left, self.has_all = num_items, threading.Event()

    def take(self, item):
        super().take(item)
        self.num_left -= 1
        if not self.num_left:
            self.has_all.set()


class Slow(Adder):
    """Keeps working on its first item until all others are done."""

    def __init__(self, until, ahead=2):
        super().__init__(ahead=ahead)
        self.until, self.had_to_wait = until, False

    def take(self, item):
        super().take(item)
        self.had_to_wait |= not self.until.wait(HANGS_S)


def test_what_is_queued_behind_a_long_item_is_done_by_the_calling_thread():
    fast = Fast(num_items=9)
    slow = Slow(fast.has_all)
    given = sum(run_in_threads([fast, slow], range(10)))
    assert not slow.had_to_wait
    assert fast.total + slow.total == given


def test_a_thread_has_as_much_to_do_as_it_may_put_off_while_another_works():
    fast = Fast(num_items=6)
    slow = Slow(fast.has_all, ahead=6)
    sum(run_in_threads([slow, fast], range(8)))
    assert not slow.had_to_wait
