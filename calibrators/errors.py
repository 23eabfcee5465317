"""The errors that calibrators raises, as one tree.

    CalibratorError
    ├── ObservationError      values that cannot be counted, or a tensor that nobody asked for
    ├── MethodError           an unknown method, an option it does not have, a value out of range
    ├── MergeError            statistics of different things put together
    ├── CalibrationFileError  a calibration file that is damaged, foreign or too new
    ├── CacheError            a TensorRT calibration cache that cannot be read or written
    └── NotInstalledError     an optional package is not installed

A message says what was wrong, where (tensor, file line, value) and what to do.
"""

from __future__ import annotations

__all__ = [
    "CacheError",
    "CalibrationFileError",
    "CalibratorError",
    "MergeError",
    "MethodError",
    "NotInstalledError",
    "ObservationError",
]


class CalibratorError(Exception):
    """Root of everything that calibrators reports to its user."""


class ObservationError(CalibratorError):
    """Values cannot be counted: their type, their tensor's name, or there are none."""


class MethodError(CalibratorError):
    """There is no such method, or the method has no such option or value."""


class MergeError(CalibratorError):
    """Statistics that do not belong together were to be merged."""


class CalibrationFileError(CalibratorError):
    """A calibration file cannot be read: damaged, of another kind, or of a newer version."""


class CacheError(CalibratorError):
    """A TensorRT calibration cache cannot be read or written."""


class NotInstalledError(CalibratorError):
    """An optional package that the call needs is not installed."""
