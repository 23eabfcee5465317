"""The process that compares networks, kept from one test to the next: its start takes most of its time."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trtbuild.runtime.child import end
from trtbuild.runtime.isolated import IsolatedProcess, MappedWeight

if TYPE_CHECKING:
    import subprocess

__all__ = ["KeptProcess"]


class KeptProcess(IsolatedProcess):
    """An `IsolatedProcess` that leaves its idle process to the next one."""

    _idle: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, *limits: float) -> None:
        super().__init__(*limits)
        self._is_asked = False

    def _ask(
        self, limit: float | None, request: tuple[Any, ...], patience: float
    ) -> tuple[Any, ...]:
        self._is_asked = True
        answer = super()._ask(limit, _from_anywhere(request), patience)
        self._is_asked = False  # not after an error: the state of the process is unknown then
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None and not self._closed:
            with contextlib.suppress(IndexError):  # no idle process
                kept = self._idle.pop()
                if kept.poll() is None:
                    self._process = kept
                else:  # the system has ended it
                    end(kept)
        return super()._started()

    def close(self) -> None:
        """Leave the process to the next one, unless it is busy."""
        self._closed = True
        # taken first: a later request finds no process, and an earlier one has set `_is_asked`
        process, self._process = self._process, None
        if process is not None:
            is_idle = not self._is_asked and process.poll() is None
            if is_idle and not self._idle:
                self._idle.append(process)
            else:
                end(process)
        super().close()

    @classmethod
    def end_all(cls) -> None:
        """End the idle processes."""
        while cls._idle:
            end(cls._idle.pop())


def _from_anywhere(request: tuple[Any, ...]) -> tuple[Any, ...]:
    """`request` with absolute paths of weights, for a process that was started in another folder."""
    what, *given = request
    if what != "open":
        return request
    content, keys, new = given
    whole = {
        key: replace(one, path=str(Path(one.path).absolute()))
        if isinstance(one, MappedWeight)
        else one
        for key, one in new.items()
    }
    return what, content, keys, whole
