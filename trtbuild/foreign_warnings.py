"""What other packages warn of (`warnings.warn`) becomes log lines, without the source that warned."""

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
"""The logger of `logging.captureWarnings`: who has set it up gets these lines there."""

_log = logging.getLogger(PY_WARNINGS)


@contextlib.contextmanager
def warnings_logged() -> Iterator[None]:
    """Log what Python's filters let pass while the block lasts, each warning in one line."""
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
