"""Progress of long work, as a protocol of one function.

A stage takes a `Progress` and calls ``progress(stage, done, total)`` now and then; it never prints.
The command line gives one that draws a bar on a terminal; everybody else gets `silent`.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called with the name of the work, how much is done, and of how much (None: not known)."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


def silent(stage: str, done: int, total: int | None) -> None:
    """Show nothing."""
    del stage, done, total
