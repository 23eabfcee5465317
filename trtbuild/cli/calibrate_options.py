"""The options that say how ranges are chosen, shared by ``engine`` and ``calibrate``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from calibrators import METHODS
from trtbuild.calibration import CalibrateOptions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["calibrate_options"]


def calibrate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--calibrator`` and its settings; the command gets one `CalibrateOptions`."""

    @click.option(
        "--calibrator",
        type=click.Choice(sorted(METHODS)),
        default="entropy",
        show_default=True,
        help="Rule that chooses thresholds.",
    )
    @click.option(
        "--percentile", type=float, help="With --calibrator percentile: share kept, in percent."
    )
    @click.option(
        "--workers", type=click.IntRange(min=1), help="Threads; never changes the result."
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any, calibrator: str, percentile: float | None, workers: int | None, **kwargs: Any
    ) -> Any:
        settings = {} if percentile is None else {"percentile": percentile}
        options = CalibrateOptions(calibrator, settings, workers)
        return command(*args, calibrate=options, **kwargs)

    return wrapped
