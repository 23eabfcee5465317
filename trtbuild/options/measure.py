"""How long latency is measured, and the limits it is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from trtbuild.errors import OptionError
from trtbuild.options.fields import option, options_of

__all__ = ["DEFAULT_MARGIN_PERCENT", "BuildSpeedLimits", "MeasureOptions", "SpeedLimits"]

DEFAULT_MARGIN_PERCENT = 2.0
"""Latency differences below this count as none."""


def _milliseconds(text: str) -> float:
    try:
        return 1000.0 * float(text)
    except ValueError as error:
        raise ValueError(f"cannot be '{text}'; write a number of seconds") from error


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How long to measure."""

    warmup_ms: float = option(
        200.0, "Warm-up of each session, which runs at least 3 times before it counts.",
        unit="ms",
    )  # fmt: skip
    duration_ms: float = option(
        3000.0, "Time of the measurement, all sessions together, for each batch size.",
        flag="--seconds", unit="ms", flag_unit=("s", 0.001), metavar="SECONDS", parse=_milliseconds,
        essential=True,
    )  # fmt: skip
    min_rounds: int = option(12, "Minimum turns of each session, however long they take.", low=1)
    max_rounds: int = option(10_000, "Maximum turns of each session.", low=1)
    runs_per_turn: int | None = option(
        None, "Runs of one turn.", low=1, when_absent="as many as last some milliseconds"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise OptionError(
                f"--min-rounds is at least 1 and at most --max-rounds, and not {self.min_rounds} of "
                f"{self.max_rounds}."
            )
        if not 0 < self.duration_ms < math.inf:
            raise OptionError(f"--seconds must be above 0, not {self.duration_ms / 1000:g}.")
        if not 0 <= self.warmup_ms < math.inf:
            raise OptionError(f"--warmup-ms must be 0 or more, not {self.warmup_ms:g}.")
        if self.runs_per_turn is not None and self.runs_per_turn < 1:
            raise OptionError("a turn needs at least 1 run.")


@dataclass(frozen=True, kw_only=True)
class SpeedLimits:
    """Limits on speed; None is not judged."""

    max_latency: float | None = option(
        None, "Maximum median latency of one batch.", unit="ms", essential=True
    )
    min_speedup: float | None = option(
        None, "Minimum speed, as a multiple of float's; in `bench`, of --against's.", metavar="FACTOR",
        essential=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in options_of(type(self)):
            limit = getattr(self, field.name)
            if limit is None:
                continue
            if not isinstance(limit, Real):
                raise OptionError(f"{field.flag} must be a number above 0, not {limit!r}.")
            if not 0 < float(limit) < math.inf:
                raise OptionError(f"{field.flag} must be a number above 0, not {limit:g}.")

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the limits that are set."""
        return tuple(
            one.flag for one in options_of(type(self)) if getattr(self, one.name) is not None
        )


@dataclass(frozen=True, kw_only=True)
class BuildSpeedLimits(SpeedLimits):
    """Limits on the speed of an engine that is built."""

    min_fp16_speedup: float | None = option(
        None,
        "Minimum speed, as a multiple of FP16's, if the backend builds FP16, as TensorRT does.",
        metavar="FACTOR",
    )
