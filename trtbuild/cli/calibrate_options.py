"""The options that say how ranges are chosen, shared by ``engine`` and ``calibrate``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from calibrators import METHODS
from calibrators.presets import PRESETS
from trtbuild.calibration import AS_TENSORRT, CalibrateOptions
from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["calibrate_options"]

_NAMES = [*METHODS, AS_TENSORRT, *PRESETS]


def calibrate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option about ranges; the command gets one `CalibrateOptions` named ``calibrate``.

    Its ``batch_size`` and ``preprocess`` are for the command to fill in.
    """

    @click.option("--calibrator", type=click.Choice(_NAMES), default="entropy", show_default=True,
                  metavar="NAME", help=f"Rule that chooses thresholds: {', '.join(_NAMES)}.")  # fmt: skip
    @click.option(
        "--percentile", type=float, help="With --calibrator percentile: share kept, in percent."
    )
    @click.option("--until-stable", metavar="SHARE",
                  help="Stop when thresholds from two halves of the data agree: 1%.")  # fmt: skip
    @click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True,
                  help="Processes; never changes the result.")  # fmt: skip
    @click.option(
        "--ray", metavar="ADDRESS", is_flag=False, flag_value="", help="Work on a Ray cluster."
    )
    @click.option("--calibrate-on", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
                  help="Where the network runs; cuda needs onnxruntime-gpu and PyTorch.")  # fmt: skip
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        percentile, ray = kwargs.pop("percentile"), kwargs.pop("ray")
        options = CalibrateOptions(
            method=kwargs.pop("calibrator"),
            method_options={} if percentile is None else {"percentile": percentile},
            until_stable=_share(kwargs.pop("until_stable")),
            workers=kwargs.pop("workers"),
            ray=ray is not None,
            ray_address=ray or None,
            device=kwargs.pop("calibrate_on"),
        )
        return command(*args, calibrate=options, **kwargs)

    return wrapped


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise OptionError(f"--until-stable cannot be '{text}'; write for example 1%.") from error
