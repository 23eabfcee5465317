"""The errors that trtbuild raises, as one tree.

    TrtbuildError                 anything trtbuild says about the user's input or machine
    ├── InputError                exit code 2: something that was given is wrong
    │   ├── ModelError            the network: unreadable, invalid, not supported
    │   │   ├── ExecutionError    it does not load or run in ONNX Runtime
    │   │   │   └── OutOfTimeError    it was given up after the time that it may take
    │   │   └── TooManyWaysError  channels of a layer are coupled without end
    │   ├── DataError             calibration or verification data, labels, preprocessing
    │   ├── OptionError           an option, a pattern, or a combination of options
    │   │   └── BudgetError           so much cannot be taken from this network
    │   └── OutputError           a file or folder that cannot be written
    ├── GateError                 exit code 1: built, but a gate did not pass
    └── MissingError              exit code 3: a package, library or device is not there
        └── DeviceError           the CUDA driver refuses: no memory, no GPU, a broken context

A message is one sentence or two for a user: what was wrong, where (file, tensor, value), what to do.
Any other error is a bug of trtbuild and ends with exit code 4.

Foreign errors are converted into this tree: those of ``calibrators`` and of the file system by `in_one_tree`,
those of NVIDIA's bindings by `trtbuild.runtime.tensorrt.logger`, those of ONNX Runtime by
`trtbuild.runtime.onnxruntime`, those of the packages that reach a GPU by `trtbuild.runtime.cuda`.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "BudgetError",
    "DataError",
    "DeviceError",
    "ExecutionError",
    "GateError",
    "InputError",
    "MissingError",
    "ModelError",
    "OptionError",
    "OutOfTimeError",
    "OutputError",
    "TrtbuildError",
    "decoding",
    "did_you_mean",
    "in_one_tree",
]


class TrtbuildError(Exception):
    """Root of all errors that trtbuild reports to its user."""

    exit_code = 4


class InputError(TrtbuildError):
    """Something that the user gave is wrong."""

    exit_code = 2


class ModelError(InputError):
    """The network cannot be read, is invalid, or contains something that is not supported."""


class ExecutionError(ModelError):
    """The network does not load or run in ONNX Runtime.

    Args:
        message: for a user.
        reason: the part of the message that ONNX Runtime wrote.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class OutOfTimeError(ExecutionError):
    """The network was given up because it exceeded its time limit."""


class DataError(InputError):
    """Images, arrays, labels or their preprocessing do not fit."""


class OptionError(InputError):
    """An option or a combination of options makes no sense, or does not fit this network."""


class BudgetError(OptionError):
    """The network cannot be pruned that far: what must stay exceeds the budget."""


class OutputError(InputError):
    """A file or a folder cannot be written."""


class GateError(TrtbuildError):
    """The engine was built, but does not meet a limit that the user set."""

    exit_code = 1


class MissingError(TrtbuildError):
    """Something required is not installed, or a device is missing."""

    exit_code = 3


class DeviceError(MissingError):
    """The CUDA driver refuses: no memory, no device, a broken context."""


# File system errors about a user's names, permissions and space; others, such as a broken pipe, pass.
# EDQUOT and ESTALE are unknown on Windows.
_REFUSED = frozenset(
    getattr(errno, name, 0)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG"),
        *("ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE", "EIO", "ENXIO", "ENODEV", "ESTALE"),
    )
)


@contextlib.contextmanager
def in_one_tree(prefix: str = "") -> Iterator[None]:
    """Convert errors of `calibrators` in the block, or in the decorated function, into errors of this tree.

    The same applies to refusals of the system: a name that is too long, a folder without permission, a full
    disk.

    Args:
        prefix: put before the message.

    Raises:
        DataError: values cannot be counted.
        OptionError: a method, or an option of one, does not exist.
        MissingError: a package is not installed.
        InputError: any other `calibrators.CalibratorError`, or a file that the system refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        what = _place_of(error)
        raise InputError(f"{prefix}the system refuses {what}: {error.strerror}.") from error
    except Exception as error:
        kind = _kind_of(error)
        if kind is None:
            raise
        raise kind(f"{prefix}{error}") from error


def _place_of(error: OSError) -> str:
    """Return the name of what the system refuses, in words."""
    if error.filename is not None:
        return f"'{error.filename}'"
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder, which was removed"
    return "a file"


@contextlib.contextmanager
def decoding(kind: type[TrtbuildError], text: str, remedy: str = "") -> Iterator[None]:
    """Turn any error while decoding a file in the block into one `kind`, as `calibrators` does.

    Args:
        kind: the error for the user; errors of this tree and of ``calibrators`` pass unchanged.
        text: what failed, such as ``cannot read the labels 'l.csv'``; the reason follows.
        remedy: a sentence after the reason.

    Raises:
        kind: any other error occurred.
    """
    try:
        yield
    except TrtbuildError:
        raise
    except Exception:
        from calibrators import (
            errors,  # imported here: the package loads NumPy, and most calls meet no error
        )

        with errors.decoding(kind, text, remedy):
            raise


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, and the second if the first ends with a colon.

    For an error without a message, return the name of its type.
    """
    first, *others = (says(error).strip() or type(error).__name__).splitlines()
    leads = others and first.rstrip().endswith(":")
    return f"{first.rstrip()} {others[0].strip()}" if leads else first


def says(error: BaseException) -> str:
    """Return an error's message; empty if its ``__str__`` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - ``__str__`` is the user's
        return ""


def _kind_of(error: Exception) -> type[TrtbuildError] | None:
    """Return our kind for an error of `calibrators`; None for any other error."""
    # A module that is not loaded has raised nothing; loading it here may fail, after Ctrl-C during an import.
    errors = sys.modules.get("calibrators.errors")
    if errors is None:
        return None
    kinds = (
        (errors.NotInstalledError, MissingError),
        (errors.ObservationError, DataError),
        (errors.MethodError, OptionError),
        (errors.CalibratorError, InputError),
    )
    return next((ours for theirs, ours in kinds if isinstance(error, theirs)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the nearest of `known` names; empty if none is near."""
    import difflib  # imported here: most calls meet no error

    found = difflib.get_close_matches(name, known, 1)
    return f" (did you mean '{found[0]}'?)" if found else ""
