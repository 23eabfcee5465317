"""Makes a build report its progress, and lets Ctrl-C stop it.

TensorRT calls back between its steps. Python runs signal handlers only while Python code runs, so during a
build they run inside these callbacks; and the bindings swallow every exception of a callback, so Ctrl-C and
SIGTERM would be printed and forgotten. They are therefore noted, the next callback cancels the build, and
`interruptible` raises what was noted.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.progress import step_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.progress import Progress
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Interruption", "interruptible", "make_monitor"]


@dataclass
class Interruption:
    """Why a build must stop: Ctrl-C, or an error in a callback; None while it may continue."""

    cause: BaseException | None = None


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Note Ctrl-C while the block runs, and raise it, or any other noted cause, at the end.

    SIGTERM and SIGHUP are treated the same if the program has handlers for them that raise.
    """
    interruption = Interruption()

    def note(number: int, frame: Any) -> None:
        """Note what ends the build; an exception raised here would be lost in the native code."""
        if number == signal.SIGINT:
            interruption.cause = KeyboardInterrupt()
            return
        try:
            before[number](number, frame)
        except BaseException as error:  # noqa: BLE001  raised again after the build has ended
            interruption.cause = error

    before = _handlers()
    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:  # else a called handler has installed another one
                signal.signal(number, handler)
    if interruption.cause is not None:
        raise interruption.cause


def _handlers() -> dict[int, Any]:
    """The signals that end a build, with their handlers; none outside the main thread, which sets them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = {number: signal.getsignal(number) for number in ends}
    return {
        signal.SIGINT: signal.getsignal(signal.SIGINT),
        **{number: handler for number, handler in handled.items() if callable(handler)},
    }


def make_monitor(tensorrt: TensorRT, progress: Progress, interruption: Interruption) -> Any:
    """Make an ``IProgressMonitor`` that reports each phase and cancels once `interruption` has a cause.

    Phases are nested; all of them are reported as steps of one stage, ``build``.
    """

    class Monitor(tensorrt.module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Report that a phase begins."""
            del parent_phase
            self._steps[phase_name] = num_steps
            self._show(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Report a step, counted from 0; return False to cancel the build."""
            self._show(phase_name, step + 1)
            return interruption.cause is None

        def phase_finish(self, phase_name: str) -> None:
            """Report that a phase is done."""
            self._show(phase_name, self._steps.pop(phase_name, 0))

        def _show(self, phase: str, done: int) -> None:
            try:
                progress(step_of("build", phase), done, self._steps.get(phase, done))
            except BaseException as error:  # noqa: BLE001  raised again after the build has ended
                interruption.cause = error

    return Monitor()
