"""Turns TensorRT's log, the exceptions of its bindings, and None results into our errors."""

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
    """Lines of TensorRT's log: pairs of severity (``ERROR``, ``WARNING`` ...) and text, oldest first."""

    lines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def texts(self, *severities: str) -> list[str]:
        """Return the lines of the given severities."""
        return [text for severity, text in self.lines if severity in severities]

    @property
    def mark(self) -> object:
        """The present end of the log, for `since`."""
        return self.lines[-1] if self.lines else None

    def since(self, mark: object) -> Log:
        """Return the log after a mark, or all kept lines if the marked line has been dropped."""
        newest = itertools.takewhile(lambda line: line is not mark, reversed(self.lines))
        return Log(deque(reversed(list(newest)), maxlen=_KEPT))

    @property
    def errors(self) -> list[str]:
        """The error lines."""
        return self.texts("INTERNAL_ERROR", "ERROR")

    def reason(self) -> str:
        """Return the errors as one sentence for a message; never empty.

        Without a driver, each error has a second line about that; it is left out if another line exists.
        """
        errors = [text for text in self.errors if _NO_DRIVER not in text] or self.errors
        return "; ".join(errors) or "TensorRT gave no reason"


# One logger for each module, with the logs that it writes into. A library accepts one logger per process, the
# first one, and ignores others as long as any object lives that was made with the first.
_loggers: dict[str, tuple[Any, list[weakref.ref[Log]]]] = {}


def make_logger(tensorrt: TensorRT, log: Log) -> Any:
    """Return an ``ILogger`` that writes into `log`, at level INFO and above, as long as `log` lives.

    All calls in a process return the same logger, so a line goes into every living log.

    The class is made here because its base exists only if TensorRT is installed. Its method must not raise:
    the bindings print and forget exceptions of callbacks.
    """
    verbose = tensorrt.module.ILogger.VERBOSE
    name = tensorrt.module.__name__
    if name not in _loggers:
        listening: list[weakref.ref[Log]] = []

        class Logger(tensorrt.module.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, text: str) -> None:
                """Add a line to all living logs, except verbose ones."""
                if severity != verbose:
                    for one in [found for ref in list(listening) if (found := ref())]:
                        one.lines.append((severity.name, text))

        _loggers[name] = (Logger(), listening)
    logger, logs = _loggers[name]
    logs[:] = [ref for ref in logs if ref() is not None]
    logs.append(weakref.ref(log))
    return logger


# TypeError: the library returned null to a constructor, or an argument has a wrong type or range.
# ValueError: a shape with more than 8 dimensions. RuntimeError and MemoryError: an exception of C++.
_RAISED = (TypeError, ValueError, RuntimeError, MemoryError)


@contextlib.contextmanager
def explained(
    log: Log, what: str, kind: type[TrtbuildError] = ModelError, remedy: str = ""
) -> Iterator[None]:
    """Turn exceptions of the bindings in the block into errors of `kind`; use it for calls of TensorRT only.

    Args:
        log: TensorRT's log, which explains the error.
        what: what failed; the message begins with it.
        kind: class of the error.
        remedy: a sentence that ends the message.

    Raises:
        TrtbuildError: of class `kind`; the message holds the log's errors, else the exception's text.
    """
    try:
        yield
    except _RAISED as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        reason = log.reason() if log.errors else said
        raise kind(f"{what}: {reason}. {remedy}".rstrip()) from error


def made(result: Any, what: str, log: Log) -> Any:
    """Return the object that the library made.

    Raises:
        InputError: it made nothing, so the bindings returned None.
    """
    if result is None:
        raise InputError(f"TensorRT makes no {what}: {log.reason()}.")
    return result
