"""TensorRT's log lines, and what its bindings raise or answer in place of an object, as our errors."""

from __future__ import annotations

import contextlib
import itertools
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


@dataclass(frozen=True)
class Log:
    """What TensorRT said: pairs of severity (``ERROR``, ``WARNING`` ...) and text, oldest first."""

    lines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def texts(self, *severities: str) -> list[str]:
        """The lines of some severities."""
        return [text for severity, text in self.lines if severity in severities]

    @property
    def mark(self) -> object:
        """Where the log ends now, for `since`."""
        return self.lines[-1] if self.lines else None

    def since(self, mark: object) -> Log:
        """The part of the log behind a mark; all that is kept where the mark's line has been dropped."""
        newest = itertools.takewhile(lambda line: line is not mark, reversed(self.lines))
        return Log(deque(reversed(list(newest)), maxlen=_KEPT))

    @property
    def errors(self) -> list[str]:
        """What went wrong, in TensorRT's words."""
        return self.texts("INTERNAL_ERROR", "ERROR")

    def reason(self) -> str:
        """The errors as one sentence for a message; never empty.

        Where there is no driver, each error has a second line that says so; it is left out beside a first.
        """
        errors = [text for text in self.errors if _NO_DRIVER not in text] or self.errors
        return "; ".join(errors) or "TensorRT gave no reason"


def make_logger(tensorrt: TensorRT, log: Log) -> Any:
    """Make an ``ILogger`` that writes into `log`, at level INFO and above.

    The class is made here because its base exists only where TensorRT is installed. `log` must not raise:
    the bindings print and forget exceptions of callbacks.
    """
    verbose = tensorrt.module.ILogger.VERBOSE

    class Logger(tensorrt.module.ILogger):  # type: ignore[misc, name-defined]
        def log(self, severity: Any, text: str) -> None:
            if severity != verbose:
                log.lines.append((severity.name, text))

    return Logger()


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


def made(thing: Any, what: str, log: Log) -> Any:
    """Return what the library made.

    Raises:
        InputError: it made nothing, which the bindings answer with None.
    """
    if thing is None:
        raise InputError(f"TensorRT makes no {what}: {log.reason()}.")
    return thing
