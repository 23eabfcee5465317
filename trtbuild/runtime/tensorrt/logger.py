"""TensorRT's log lines, kept so that a failure can explain itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Log", "make_logger"]

# Enough for every warning of a large network; a build at level INFO can write tens of thousands of lines.
_KEPT = 5000


@dataclass(frozen=True)
class Log:
    """What TensorRT said: pairs of severity (``ERROR``, ``WARNING`` ...) and text, oldest first."""

    lines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def texts(self, *severities: str) -> list[str]:
        """The lines of some severities."""
        return [text for severity, text in self.lines if severity in severities]

    @property
    def errors(self) -> list[str]:
        """What went wrong, in TensorRT's words."""
        return self.texts("INTERNAL_ERROR", "ERROR")

    def reason(self) -> str:
        """The errors as one sentence for a message; never empty."""
        return "; ".join(self.errors) or "TensorRT gave no reason"


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
