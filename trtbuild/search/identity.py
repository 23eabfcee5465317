"""A text that tells one maker of a judge from another, in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.verification.tasks.user_judge import Telling

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["identity"]

_PLAIN = (str, bytes, int, float, type(None), Enum, Path)


def identity(found: object) -> str | None:
    """Return a text that equal objects have in every process, and others do not.

    A function or class is known by its module, its name and the digest of its source file; what it imports is
    not looked at. What judges were seen to do (`Telling`) does not count.

    Returns:
        None for an object that may hold anything: an instance of a class that is no dataclass, an array of
        objects, a function that is made within another one, or code without a file.
    """
    if isinstance(found, _PLAIN):
        return repr(found)
    if isinstance(found, Telling):
        return "telling"
    if isinstance(found, np.ndarray):
        if found.dtype.hasobject:  # its bytes are addresses
            return None
        digest = hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest()
        return f"{found.dtype}{found.shape}{digest}"
    if isinstance(found, (FunctionType, type)):
        return _of_code(found)
    parts = _parts(found)
    return None if parts is None else _together(parts)


def _parts(found: object) -> Iterable[object] | None:
    """What an object consists of; None if that is not known."""
    if isinstance(found, (tuple, list)):
        return found
    if isinstance(found, (set, frozenset)):  # its order differs in every process
        return sorted(found, key=repr)
    if isinstance(found, dict):
        return found.items()
    if isinstance(found, partial):
        return (found.func, found.args, found.keywords)
    if dataclasses.is_dataclass(found):
        return (type(found), *(getattr(found, one.name) for one in dataclasses.fields(found)))
    return None


def _together(parts: Iterable[object]) -> str | None:
    texts = [identity(one) for one in parts]
    return None if None in texts else f"({', '.join(map(str, texts))})"


def _of_code(found: FunctionType | type) -> str | None:
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    if file is None or "<" in found.__qualname__:
        return None
    try:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None
    return f"{found.__module__}.{found.__qualname__} {digest}"
