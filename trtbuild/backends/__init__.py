"""The backends, which build and run engines, and the choice of one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from trtbuild.errors import MissingError, OptionError
from trtbuild.plugins import BACKEND, in_one_line, installed, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.backends.base import Backend
    from trtbuild.options.tensorrt import OpenOptions

__all__ = ["AUTO", "choose_backend", "known_backends"]

AUTO = "auto"
# Without TensorRT for RTX: it also builds where nothing can run the plan, so it is used only by name.
_AUTOMATIC = ("tensorrt", "onnxruntime")

# What every backend must have.
_ASKED = ("name", "suffix", "availability", "check", "build", "open")


def known_backends(options: OpenOptions | None = None) -> Mapping[str, Backend]:
    """Return every backend by name, the preferred first; this loads no vendor library.

    Args:
        options: TensorRT's options for opening plans.
    """
    # Imported here: every import of `backends.base` runs this file, and the backends need packages that
    # import `backends.base` themselves.
    from trtbuild.backends.onnxruntime import OnnxRuntimeBackend
    from trtbuild.backends.tensorrt import TensorRTBackend
    from trtbuild.runtime.tensorrt.versions import RTX

    every = (TensorRTBackend(options), TensorRTBackend(options, RTX), OnnxRuntimeBackend())
    return {backend.name: backend for backend in every}


def choose_backend(
    name: str | Backend = AUTO, options: OpenOptions | None = None
) -> tuple[Backend, str]:
    """Return the backend `name`, or with ``auto`` the first that works on this machine.

    Args:
        name: name of a backend, ``auto``, ``module:class`` of the user's own backend, or a backend itself.
        options: TensorRT's options for opening plans.

    Returns:
        The backend, and one sentence that says which was chosen and why.

    Raises:
        OptionError: there is no backend of that name, or the given object is not a backend.
        MissingError: it does not work here; the message says why, and the remedy.
    """
    if not isinstance(name, str):
        return _usable(_made(name, getattr(name, "__qualname__", type(name).__qualname__)))
    backends = known_backends(options)
    if name != AUTO:
        return _usable(backends.get(name) or _own_backend(name, [*backends, AUTO]))
    passed_over: list[str] = []
    for backend in (backends[each] for each in _AUTOMATIC):
        found = backend.availability()
        if found.usable:
            return backend, ". ".join([found.detail, *passed_over])
        passed_over.append(f"{backend.name} is not usable here: {found.detail}")
    raise MissingError("no backend works on this machine. " + ". ".join(passed_over))


def _usable(backend: Backend) -> tuple[Backend, str]:
    """The backend that was asked for, and a sentence that says so."""
    found = backend.availability()
    if found.usable:
        return backend, f"{found.detail}, as asked"
    text = f"the backend '{backend.name}' cannot be used: {found.detail}. {found.remedy}"
    raise MissingError(text.strip())


def _own_backend(name: str, known: Sequence[str]) -> Backend:
    """The user's own backend, or one of an installed package."""
    if ":" not in name and name not in {one.name for one in installed(BACKEND)}:
        known = [*known, *(one.name for one in installed(BACKEND))]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise OptionError(f"there is no backend '{name}'; known are {', '.join(known)}{hint}")
    return _made(load(BACKEND, name, OptionError), name)


def _made(found: Any, name: str) -> Backend:
    """The backend that a user gives: an object, or a class or function that makes one."""
    try:
        is_maker = isinstance(found, type) or (callable(found) and not hasattr(found, "build"))
        made = found() if is_maker else found
    except Exception as error:
        raise OptionError(f"the backend '{name}' cannot be made: {in_one_line(error)}.") from error
    lacking = [one for one in _ASKED if not hasattr(made, one)]
    if lacking:
        raise OptionError(
            f"'{name}' gives a {type(made).__name__}, which is not a backend: it has no '{lacking[0]}'; see "
            "trtbuild.backends.base.Backend."
        )
    backend: Backend = made
    return backend
