"""The errors that calibrators raises, as one tree.

    CalibratorError
    ├── ObservationError      values that cannot be counted, or a tensor that is not to be observed
    ├── MethodError           an unknown method, an option it does not have, a value out of range
    ├── MergeError            statistics that do not belong together
    ├── CalibrationFileError  a calibration file that is damaged, foreign or too new
    ├── CacheError            a TensorRT calibration cache that cannot be read or written
    └── NotInstalledError     an optional package is not installed

A message says what was wrong, where (tensor, file line, value) and what to do.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CacheError",
    "CalibrationFileError",
    "CalibratorError",
    "MergeError",
    "MethodError",
    "NotInstalledError",
    "ObservationError",
    "decoding",
]

_LONGEST_REASON = 300


class CalibratorError(Exception):
    """Root of everything that calibrators reports to its user."""


class ObservationError(CalibratorError):
    """Values cannot be counted: their type, their tensor's name, or there are none."""


class MethodError(CalibratorError):
    """There is no such method, or the method has no such option or value."""


class MergeError(CalibratorError):
    """The statistics to be merged do not belong together."""


class CalibrationFileError(CalibratorError):
    """A calibration file cannot be read: damaged, of another kind, or of a newer version."""


class CacheError(CalibratorError):
    """A TensorRT calibration cache cannot be read or written."""


class NotInstalledError(CalibratorError):
    """An optional package that the call needs is not installed."""


@contextlib.contextmanager
def decoding(kind: type[Exception], text: str, remedy: str = "") -> Iterator[None]:
    """Turn every exception raised in the block, or in the decorated function, into an error of one `kind`.

    The exceptions that a damaged or hostile file causes cannot be listed: besides `ValueError` there are
    `RecursionError`, `MemoryError`, `OverflowError`, `KeyError` and each library's own.

    Args:
        kind: the error that the user gets. Errors of this kind and `CalibratorError` pass unchanged.
        text: what could not be done, such as ``cannot read the labels 'l.csv'``; the reason is appended.
        remedy: a sentence appended to the reason.

    Raises:
        kind: the block raised any other exception.
    """
    try:
        yield
    except (CalibratorError, kind):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # the file itself may be undamaged
            remedy = ""
        raise kind(f"{text}: {_reason(error)}.{remedy and ' '}{remedy}") from error


def _reason(error: Exception) -> str:
    """The first line of the error's message, without its full stop; the error's type if it has no message."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if isinstance(error, KeyError):
        text = f"it lacks {text}"
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
