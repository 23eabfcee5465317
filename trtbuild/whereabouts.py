"""What this process is doing, recorded so that its parent can read it after a crash.

A native library that divides by zero, or reads beyond the end of a file, ends its whole process: only the
parent can report it. The parent calls `share` before it forks; in the child `reading`, `busy` and
`fetching` record the work. Without `share` they do nothing.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

__all__ = ["busy", "fetching", "last_words", "reading", "share"]

_SIZE = 1 << 12


class _Inference(NamedTuple):
    """What ONNX Runtime does with the network in a thread, and the samples that it uses."""

    doing: str
    samples: Sequence[str]

    def text(self, network: str) -> str:
        """A few words, for the middle of a sentence."""
        last = "" if len(self.samples) < 2 else f" to '{self.samples[-1]}'"
        on = f" on '{self.samples[0]}'{last}" if self.samples else ""
        return f"ONNX Runtime {self.doing} {network}{on}"


class _Fetch(NamedTuple):
    """The data that a thread gets: a function or a loader gives an item, or a sample is read."""

    source: str

    def text(self, network: str) -> str:
        """A few words, for the middle of a sentence."""
        del network
        return f"data came from '{self.source}'"


class _Page:
    """Memory that this process shares with its forked children."""

    def __init__(self) -> None:
        import mmap  # imported here: most processes share nothing

        self._memory = mmap.mmap(-1, _SIZE)
        self._network = "a network"
        self._threads: dict[int, _Inference | _Fetch] = {}

    def set_network(self, name: str) -> None:
        """Set the network's name."""
        self._network = f"'{name}'"

    def exchange(self, work: _Inference | _Fetch | None) -> _Inference | _Fetch | None:
        """Record what this thread is doing; return what it did before."""
        thread = threading.get_ident()
        before = self._threads.pop(thread, None)
        if work is not None:
            self._threads[thread] = work
        found = (one.text(self._network) for one in list(self._threads.values()))
        content = " and ".join(dict.fromkeys(found)).encode(errors="replace")[: _SIZE - 1] + b"\0"
        self._memory[: len(content)] = content
        return before

    def content(self) -> str:
        """Return the last record, of any process."""
        return self._memory[:].partition(b"\0")[0].decode(errors="replace")


_page: _Page | None = None


def share() -> None:
    """Let this process read the records of children that it forks from now on."""
    global _page  # noqa: PLW0603 - a process has one record
    _page = _Page()


def last_words() -> str:
    """Return what the forked process was doing: ``ONNX Runtime ran 'n.onnx' on 'a.png'``, or nothing."""
    return "" if _page is None else _page.content()


def reading(network: str) -> None:
    """Record the name of the current network."""
    if _page is not None:
        _page.set_network(network)


def busy(doing: str, samples: Sequence[str] = ()) -> AbstractContextManager[None]:
    """Record what ONNX Runtime does in the block.

    Args:
        doing: what it does with the network: ``opened``, ``ran``.
        samples: names of the samples that it uses.
    """
    return contextlib.nullcontext() if _page is None else _during(_page, _Inference(doing, samples))


def fetching(source: str) -> AbstractContextManager[None]:
    """Record that data come from `source` in the block: a user's function, or a sample that is read."""
    return contextlib.nullcontext() if _page is None else _during(_page, _Fetch(source))


@contextlib.contextmanager
def _during(page: _Page, work: _Inference | _Fetch) -> Iterator[None]:
    before = page.exchange(work)
    try:
        yield
    finally:
        page.exchange(before)
