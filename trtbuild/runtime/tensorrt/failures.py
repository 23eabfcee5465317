"""What NVIDIA's bindings raise, or answer in place of an object, becomes an error of trtbuild."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, ModelError, TrtbuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.runtime.tensorrt.logger import Log

__all__ = ["explained", "made"]

# TypeError: the library answered null to a constructor, or an argument is of a wrong type or range.
# ValueError: a shape of more than 8 dimensions. RuntimeError and MemoryError: an exception of C++.
_RAISED = (TypeError, ValueError, RuntimeError, MemoryError)


@contextlib.contextmanager
def explained(
    log: Log, what: str, kind: type[TrtbuildError] = ModelError, remedy: str = ""
) -> Iterator[None]:
    """Raise what the bindings raise in the block as `kind`. Only calls into TensorRT belong inside.

    Args:
        log: where TensorRT explains itself.
        what: what does not work then; the message begins with it.
        kind: class of the error.
        remedy: a sentence that ends the message.

    Raises:
        TrtbuildError: of class `kind`; the message holds the log, else what the bindings say.
    """
    try:
        yield
    except _RAISED as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        reason = log.reason() if log.errors else said
        raise kind(f"{what}: {reason}. {remedy}".rstrip()) from error


def made(thing: Any, what: str, log: Log) -> Any:
    """Return what the library made.

    Raises:
        InputError: it made nothing, which the bindings answer with None.
    """
    if thing is None:
        raise InputError(f"TensorRT makes no {what}: {log.reason()}.")
    return thing
