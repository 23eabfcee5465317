"""How long latency is measured."""

from __future__ import annotations

from dataclasses import dataclass

from trtbuild.errors import OptionError
from trtbuild.options.fields import option

__all__ = ["DEFAULT_MARGIN_PERCENT", "MeasureOptions"]

DEFAULT_MARGIN_PERCENT = 2.0
"""Differences of latency below this count as none."""


def _milliseconds(text: str) -> float:
    try:
        return 1000.0 * float(text)
    except ValueError as error:
        raise ValueError(f"cannot be '{text}'; write a number of seconds") from error


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How long to measure."""

    warmup_ms: float = option(
        200.0, "Each session runs at least this long, and at least 3 times, before it counts.",
        unit="ms",
    )  # fmt: skip
    duration_ms: float = option(
        3000.0, "How long to measure, all sessions together, for each batch size.",
        flag="--seconds", unit="ms", flag_unit=("s", 0.001), metavar="SECONDS", parse=_milliseconds,
        essential=True,
    )  # fmt: skip
    min_rounds: int = option(12, "Fewest turns of each, however long they take.", low=1)
    max_rounds: int = option(10_000, "Most turns of each.", low=1)
    runs_per_turn: int | None = option(
        None, "Runs of one turn.", low=1, when_absent="as many as last some milliseconds"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise OptionError("latency needs 1 <= min_rounds <= max_rounds.")
        if not (self.duration_ms > 0 and self.warmup_ms >= 0):
            raise OptionError("latency needs a duration above 0 ms and a warm-up of at least 0 ms.")
        if self.runs_per_turn is not None and self.runs_per_turn < 1:
            raise OptionError("a turn needs at least 1 run.")
