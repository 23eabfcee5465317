"""Turns warnings of other packages (`warnings.warn`) into log lines, without the source line."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

from trtbuild.errors import says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

__all__ = ["PY_WARNINGS", "warnings_logged"]

PY_WARNINGS = "py.warnings"
"""The logger of `logging.captureWarnings`; a program that configures it gets these lines there."""

_log = logging.getLogger(PY_WARNINGS)


@contextlib.contextmanager
def warnings_logged() -> Iterator[None]:
    """Log the warnings of the block that pass Python's filters, one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = _log_warning
        yield


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del filename, lineno, file, line
    text = message if isinstance(message, str) else says(message)
    _log.warning("%s", " ".join(f"{category.__name__}: {text}".split()))
