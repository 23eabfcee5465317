"""Progress without a terminal: a line when a stage ends, or after ten seconds of silence.

Steps within a stage (TensorRT's phases of a build) appear only after such a silence.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.cli.failure import complain
from trtbuild.progress import stage_of
from trtbuild.visible import visible

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ProgressLines"]

_SILENCE_S = 10.0


@dataclass(frozen=True)
class _Stage:
    """A stage, or a step in it, and its progress; `begun` is when the stage began, in monotonic seconds."""

    name: str
    begun: float
    done: int
    total: int | None

    @property
    def stage(self) -> str:
        """Its name in words."""
        return stage_of(self.name)

    @property
    def complete(self) -> bool:
        """Whether the stage has ended; the end of a step in it does not count."""
        is_step = self.name != self.stage
        return not is_step and self.total is not None and self.done >= self.total

    def __str__(self) -> str:
        far = f"{self.done}" if self.total is None else f"{self.done} of {self.total}"
        return f"{visible(self.name)}: {far}, {time.monotonic() - self.begun:.1f} s"


class ProgressLines:
    """Writes progress lines to standard error: ``calibrate: 64 of 64, 12.1 s``.

    Used as a context manager: a thread prints a line if a stage is silent for long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._break_silence, daemon=True)
        self._stage: _Stage | None = None  # the current one; None between stages
        self._last = "the start"
        self._since = self._spoken = time.monotonic()

    def __enter__(self) -> ProgressLines:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            self._end_stage()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Record the progress of `stage`, and print a line if it is due."""
        with self._lock:
            if self._stage is not None and self._stage.stage != stage_of(stage):
                self._end_stage()
            begun = self._stage.begun if self._stage is not None else time.monotonic()
            self._stage = _Stage(stage, begun, done, total)
            if self._stage.complete:
                self._end_stage()
            elif self._is_silent:
                self._say(str(self._stage))

    @property
    def _is_silent(self) -> bool:
        return time.monotonic() - self._spoken >= _SILENCE_S

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._say(str(self._stage))
            self._last, self._since, self._stage = self._stage.name, self._spoken, None

    def _break_silence(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                if self._is_silent:
                    gone = time.monotonic() - self._since
                    idle = f"still working, {gone:.1f} s since {visible(self._last)}"
                    self._say(idle if self._stage is None else str(self._stage))

    def _say(self, line: str) -> None:
        self._spoken = time.monotonic()
        complain(line)
