"""The limits that decide an exit status, shared by ``engine`` and ``verify``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["gate_options"]

_LIMITS = {
    "min_sqnr_db": ("--min-sqnr", "Least SQNR of every output, dB."),
    "min_cosine": ("--min-cosine", "Least cosine of every output."),
    "max_relative_l2": ("--max-relative-l2", "Largest relative L2 error of every output."),
    "max_error": ("--max-error", "Largest absolute difference of any element."),
    "min_top1_agreement": (
        "--min-top1-agreement",
        "Least share of images with the same class, percent.",
    ),
    "max_top1_drop": ("--max-top1-drop", "Largest loss of top-1 against labels, points."),
}


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option per limit; the command gets one `Gate` named ``gate``."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        limits = {name: kwargs.pop(name) for name in _LIMITS}
        return command(*args, gate=Gate(**limits), **kwargs)

    options: Callable[..., Any] = wrapped
    for name, (flag, text) in reversed(_LIMITS.items()):
        options = click.option(flag, name, type=float, help=text)(options)
    return options
