"""TensorRT's log lines, and what its bindings raise or answer in place of an object, as our errors."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, ModelError, TrtbuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Log", "explained", "made", "make_logger"]


# Enough for every warning of a large network; a build at level INFO can write tens of thousands of lines.
_KEPT = 5000
_NO_DRIVER = "catchCudaError"


@dataclass(frozen=True, eq=False)
class Log:
    """What TensorRT said: pairs of severity (``ERROR``, ``WARNING`` ...) and text, oldest first."""

    lines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def texts(self, *severities: str) -> list[str]:
        """Return the lines of some severities."""
        return [text for severity, text in self.lines if severity in severities]

    @property
    def mark(self) -> object:
        """Where the log ends now, for `since`."""
        return self.lines[-1] if self.lines else None

    def since(self, mark: object) -> Log:
        """Return the part of the log behind a mark; all that is kept where that line has been dropped."""
        newest = itertools.takewhile(lambda line: line is not mark, reversed(self.lines))
        return Log(deque(reversed(list(newest)), maxlen=_KEPT))

    @property
    def errors(self) -> list[str]:
        """What went wrong, in TensorRT's words."""
        return self.texts("INTERNAL_ERROR", "ERROR")

    def reason(self) -> str:
        """Return the errors as one sentence for a message; never empty.

        Where there is no driver, each error has a second line that says so; it is left out beside a first.
        """
        errors = [text for text in self.errors if _NO_DRIVER not in text] or self.errors
        return "; ".join(errors) or "TensorRT gave no reason"


# One logger for each module, with the logs that it writes into: a library has one logger in a process, the
# first that it was given, and passes over all others while anything lives that was made with the first.
_loggers: dict[str, tuple[Any, list[weakref.ref[Log]]]] = {}


def make_logger(tensorrt: TensorRT, log: Log) -> Any:
    """Return an ``ILogger`` that writes into `log`, at level INFO and above, as long as `log` lives.

    It is the same for all of a process, so a line goes into every log that lives.

    The class is made here because its base exists only where TensorRT is installed. A log must not raise:
    the bindings print and forget exceptions of callbacks.
    """
    verbose = tensorrt.module.ILogger.VERBOSE
    name = tensorrt.module.__name__
    if name not in _loggers:
        listening: list[weakref.ref[Log]] = []

        class Logger(tensorrt.module.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, text: str) -> None:
                """Give a line to everyone who listens; details are for nobody."""
                if severity != verbose:
                    for one in [found for ref in list(listening) if (found := ref())]:
                        one.lines.append((severity.name, text))

        _loggers[name] = (Logger(), listening)
    logger, logs = _loggers[name]
    logs[:] = [ref for ref in logs if ref() is not None]
    logs.append(weakref.ref(log))
    return logger


# TypeError: the library answered null to a constructor, or an argument is of a wrong type or range.
# ValueError: a shape of more than 8 dimensions. RuntimeError and MemoryError: an exception of C++.
_RAISED = (TypeError, ValueError, RuntimeError, MemoryError)


@contextlib.contextmanager
def explained(
    log: Log, what: str, kind: type[TrtbuildError] = ModelError, remedy: str = ""
) -> Iterator[None]:
    """Raise what the bindings raise in the block as `kind`. Only calls into TensorRT belong inside.

    Args:
        log: where TensorRT explains itself.
        what: what does not work then; the message begins with it.
        kind: class of the error.
        remedy: a sentence that ends the message.

    Raises:
        TrtbuildError: of class `kind`; the message holds the log, else what the bindings say.
    """
    try:
        yield
    except _RAISED as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        reason = log.reason() if log.errors else said
        raise kind(f"{what}: {reason}. {remedy}".rstrip()) from error


def made(result: Any, what: str, log: Log) -> Any:
    """Return what the library made.

    Raises:
        InputError: it made nothing, which the bindings answer with None.
    """
    if result is None:
        raise InputError(f"TensorRT makes no {what}: {log.reason()}.")
    return result
