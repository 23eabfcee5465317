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
Everything that is not in this tree is a bug of trtbuild and ends in exit code 4.

What others raise is brought into it: the errors of ``calibrators`` and of the file system by `in_one_tree`,
those of NVIDIA's
bindings by `trtbuild.runtime.tensorrt.logger`, those of ONNX Runtime by `trtbuild.runtime.onnxruntime`,
those of the packages that reach a GPU by `trtbuild.runtime.cuda`.
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


class OutOfTimeError(ExecutionError):
    """The network was given up: it took longer than it may."""


class DataError(InputError):
    """Images, arrays, labels or their preprocessing do not fit."""


class OptionError(InputError):
    """An option or a combination of options makes no sense for this network."""


class BudgetError(OptionError):
    """So much cannot be taken from this network: what must stay is more than the budget allows."""


class OutputError(InputError):
    """A file or a folder cannot be written."""


class GateError(TrtbuildError):
    """The engine was built, and does not meet a limit that the user set."""

    exit_code = 1


class MissingError(TrtbuildError):
    """Something needed is not installed, or a device is not there."""

    exit_code = 3


class DeviceError(MissingError):
    """The CUDA driver refuses: no memory, no device, a broken context."""


# What the file system says of a user's names, rights and space; others, such as a broken pipe, pass.
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
    """Raise what `calibrators` raises in the block, or in the decorated function, as an error of this tree.

    So is what the system refuses anywhere: a name that is too long, a folder without permission, a full disk.

    Args:
        prefix: stands in front of the message.

    Raises:
        DataError: values that cannot be counted.
        OptionError: a method, or an option of one, that there is not.
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
    """Return what the system refuses, in words."""
    if error.filename is not None:
        return f"'{error.filename}'"
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder, which was removed"
    return "a file"


@contextlib.contextmanager
def decoding(kind: type[TrtbuildError], text: str, remedy: str = "") -> Iterator[None]:
    """Raise whatever decoding a file raises in the block as one `kind`, as `calibrators` does.

    Args:
        kind: the error that the user gets; errors of this tree and of ``calibrators`` pass as they are.
        text: what could not be done, such as ``cannot read the labels 'l.csv'``; the reason follows.
        remedy: a sentence behind the reason.

    Raises:
        kind: anything else was raised.
    """
    try:
        yield
    except TrtbuildError:
        raise
    except Exception:
        from calibrators import (
            errors,  # here: the package loads NumPy, and most calls meet no error
        )

        with errors.decoding(kind, text, remedy):
            raise


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, and the next one where a colon leads to it.

    An error that says nothing, or cannot, is called by its type.
    """
    first, *others = (says(error).strip() or type(error).__name__).splitlines()
    leads = others and first.rstrip().endswith(":")
    return f"{first.rstrip()} {others[0].strip()}" if leads else first


def says(error: BaseException) -> str:
    """Return what an error says; nothing where code of others fails to."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - ``__str__`` is the user's
        return ""


def _kind_of(error: Exception) -> type[TrtbuildError] | None:
    """Return what an error of `calibrators` is here; None for any other error."""
    # What is not loaded has raised nothing; loading it here may fail, after Ctrl-C in an import.
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
    """Return the end of a message that names the nearest of `known` names; empty where none is near."""
    import difflib  # here: most calls meet no error

    found = difflib.get_close_matches(name, known, 1)
    return f" (did you mean '{found[0]}'?)" if found else ""
