"""Progress of long work, as a protocol of one function.

A stage takes a `Progress` and calls ``progress(stage, done, total)`` from time to time; it never prints.
Work inside a stage is named by `step_of`; a log has one line for the whole stage.
The command line passes one that draws a bar on a terminal; other callers use `silent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Progress", "silent", "stage_of", "step_of", "with_progress"]

Item = TypeVar("Item")

_WITHIN = ": "


class Progress(Protocol):
    """What is told how far a job is."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Take the name of the work, the amount done, and the total (None if not known)."""
        ...


def silent(stage: str, done: int, total: int | None) -> None:
    """Show nothing."""
    del stage, done, total


def with_progress(
    items: Iterable[Item], stage: str, total: int | None, progress: Progress
) -> Iterator[Item]:
    """Return the items; `progress` is called for each when the next one is requested."""
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done, total)


def step_of(stage: str, step: str) -> str:
    """Return the name of work inside `stage`: ``build: Timing graph nodes``."""
    return f"{stage}{_WITHIN}{step}"


def stage_of(name: str) -> str:
    """Return the stage of a name: the part before the step, or the whole name if there is no step."""
    return name.partition(_WITHIN)[0]
