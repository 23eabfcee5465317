"""Shows warnings of trtbuild and of the packages that it uses as lines on standard error."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from trtbuild.cli.failure import complain
from trtbuild.foreign_warnings import PY_WARNINGS, warnings_logged
from trtbuild.visible import visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["warnings_shown"]


class _WarningLines(logging.Handler):
    """Writes a line for each warning, but none twice."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of `record`."""
        line = f"trtbuild: warning: {visible_lines(record.getMessage())}"
        if line not in self._said:
            self._said.add(line)
            complain(line)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Show warnings of the block; also those of other packages whose logging is not configured."""
    handler, before = _WarningLines(), logging.lastResort
    loggers = [logging.getLogger(name) for name in ("trtbuild", PY_WARNINGS)]
    for logger in loggers:
        logger.addHandler(handler)
    logging.lastResort = handler
    try:
        with warnings_logged():
            yield
    finally:
        logging.lastResort = before
        for logger in loggers:
            logger.removeHandler(handler)
