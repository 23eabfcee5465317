"""The errors that trtbuild raises, as one tree.

    TrtbuildError                 anything trtbuild says about the user's input or machine
    ├── InputError                exit code 2: something that was given is wrong
    │   ├── ModelError            the network: unreadable, invalid, not supported
    │   │   └── ExecutionError    it does not load or run in ONNX Runtime
    │   ├── DataError             calibration or verification data, labels, preprocessing
    │   ├── OptionError           an option, a pattern, or a combination of options
    │   └── OutputError           a file or folder that cannot be written
    ├── GateError                 exit code 1: built, but a gate did not pass
    └── MissingError              exit code 3: a package, library or device is not there

A message is one sentence or two for a user: what was wrong, where (file, tensor, value), what to do.
Everything that is not in this tree is a bug of trtbuild and ends in exit code 4.
``calibrators`` has a tree of its own (`calibrators.errors`); the command line gives it exit code 2.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "ExecutionError",
    "GateError",
    "InputError",
    "MissingError",
    "ModelError",
    "OptionError",
    "OutputError",
    "TrtbuildError",
]


class TrtbuildError(Exception):
    """Root of everything that trtbuild reports to its user."""

    exit_code = 4


class InputError(TrtbuildError):
    """Something that the user gave is wrong."""

    exit_code = 2


class ModelError(InputError):
    """The network cannot be read, is invalid, or holds what is not supported."""


class ExecutionError(ModelError):
    """The network does not load or run in ONNX Runtime.

    Args:
        message: for a user.
        reason: the part of it that ONNX Runtime said.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class DataError(InputError):
    """Images, arrays, labels or their preprocessing do not fit."""


class OptionError(InputError):
    """An option or a combination of options makes no sense for this network."""


class OutputError(InputError):
    """A file or a folder cannot be written."""


class GateError(TrtbuildError):
    """The engine was built, and does not meet a limit that the user set."""

    exit_code = 1


class MissingError(TrtbuildError):
    """Something needed is not installed, or a device is not there."""

    exit_code = 3
