"""What builds and runs engines, and which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import MissingError, OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.backends.base import Backend
    from trtbuild.options.tensorrt import OpenOptions

__all__ = ["AUTO", "choose_backend", "known_backends"]

AUTO = "auto"
# Not TensorRT for RTX: it builds where nothing can run the plan, so it is taken by name alone.
_AUTOMATIC = ("tensorrt", "onnxruntime")


def known_backends(options: OpenOptions | None = None) -> Mapping[str, Backend]:
    """Every backend by name, the preferred first; none is loaded by asking.

    Args:
        options: TensorRT's, for opening plans.
    """
    # Here and not above: everything that names `backends.base` passes through this file, and the backends
    # themselves stand on packages that do.
    from trtbuild.backends.onnxruntime import OnnxRuntimeBackend
    from trtbuild.backends.tensorrt import TensorRTBackend
    from trtbuild.runtime.tensorrt.versions import RTX

    every = (TensorRTBackend(options), TensorRTBackend(options, RTX), OnnxRuntimeBackend())
    return {backend.name: backend for backend in every}


def choose_backend(name: str = AUTO, options: OpenOptions | None = None) -> tuple[Backend, str]:
    """Take the backend `name`, or with ``auto`` the first that works on this machine.

    Args:
        name: of a backend, or ``auto``.
        options: TensorRT's, for opening plans.

    Returns:
        The backend, and one sentence that says what was picked and why.

    Raises:
        OptionError: there is no backend of that name.
        MissingError: it does not work here; the message says why and what mends it.
    """
    backends = known_backends(options)
    if name != AUTO:
        if name not in backends:
            raise OptionError(
                f"there is no backend '{name}'; known are {', '.join(backends)}, {AUTO}."
            )
        found = backends[name].availability()
        if not found.usable:
            raise MissingError(
                f"the backend '{name}' cannot be used: {found.detail}. {found.remedy}".strip()
            )
        return backends[name], f"{found.detail}, as asked"
    passed_over: list[str] = []
    for backend in (backends[each] for each in _AUTOMATIC):
        found = backend.availability()
        if found.usable:
            return backend, ". ".join([found.detail, *passed_over])
        passed_over.append(f"{backend.name} is not usable here: {found.detail}")
    raise MissingError("no backend works on this machine. " + ". ".join(passed_over))
