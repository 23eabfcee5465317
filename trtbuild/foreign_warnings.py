"""Warnings of other packages and of users' code (`warnings.warn`): log lines, and no errors."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

from trtbuild.errors import says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

__all__ = ["PY_WARNINGS", "warnings_logged", "warnings_that_only_warn"]

PY_WARNINGS = "py.warnings"
"""The logger of `logging.captureWarnings`; a program that configures it gets these lines there."""

_log = logging.getLogger(PY_WARNINGS)


@contextlib.contextmanager
def warnings_logged() -> Iterator[None]:
    """Log the warnings of the block that pass Python's filters, one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = _log_warning
        yield


@contextlib.contextmanager
def warnings_that_only_warn() -> Iterator[None]:
    """Show in the block what Python's filters make errors, for example in a suite of tests.

    Raised out of a user's module, such a warning would read as the module's failure.
    """
    with warnings.catch_warnings():
        warnings.filters = [
            ("default" if one[0] == "error" else one[0], *one[1:]) for one in warnings.filters
        ]
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
