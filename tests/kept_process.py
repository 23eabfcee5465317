"""The process that compares networks, kept from one test to the next: starting it takes most of its time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trtbuild.runtime.child import end
from trtbuild.runtime.isolated import IsolatedProcess

if TYPE_CHECKING:
    import subprocess

__all__ = ["KeptProcess"]


class KeptProcess(IsolatedProcess):
    """One whose process serves the next one, too, where it is idle and was started in the same folder."""

    _idle: ClassVar[dict[Path, subprocess.Popen[bytes]]] = {}

    def __init__(self, *limits: float) -> None:
        super().__init__(*limits)
        self._folder = Path.cwd()
        self._is_asked = False

    def _ask(self, *request: Any) -> tuple[Any, ...]:
        self._is_asked = True
        answer = super()._ask(*request)
        self._is_asked = False  # not after an error: who knows what state it is in
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None and not self._closed:
            kept = self._idle.pop(self._folder, None)
            if kept is not None and kept.poll() is not None:  # the system has ended it
                end(kept)
                kept = None
            self._process = kept
        return super()._started()

    def close(self) -> None:
        """Leave the process to the next one, unless it is at work."""
        self._closed = True
        # taken first: whoever asks from here on finds none, and whoever asked before has said so
        process, self._process = self._process, None
        if process is not None:
            is_idle = not self._is_asked and process.poll() is None
            if is_idle and self._folder not in self._idle:
                self._idle[self._folder] = process
            else:
                end(process)
        super().close()

    @classmethod
    def end_all(cls) -> None:
        """End the processes that nobody uses."""
        while cls._idle:
            end(cls._idle.popitem()[1])
