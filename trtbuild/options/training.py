"""Functions of the user's that train and judge a module, and what a compressed one may lose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtbuild.errors import OptionError
from trtbuild.options.fields import option

__all__ = ["STAGES_WITH_LIMITS", "Allowance", "TrainOptions", "parse_stage_drop", "stage_drop_text"]

STAGES_WITH_LIMITS = ("pruned", "tuned", "sparse", "weights", "form", "engine")
"""What `Allowance` calls the steps of a module: channels removed, trained after that, 2:4 zeros made, weights
in INT8, everything in INT8 as written, and as the engine runs it."""

_FUNCTION = "package.module:function or script.py:function"


def parse_stage_drop(text: str) -> tuple[str, float]:
    """Return a stage and its limit from ``STAGE=POINTS``.

    Raises:
        ValueError: the text has another form, or a limit that nothing meets or everything.
    """
    stage, equals, number = text.partition("=")
    try:
        if equals and stage and 0 <= float(number) < math.inf:
            return stage, float(number)
    except ValueError:
        pass
    raise ValueError(f"'{text}' is not STAGE=POINTS with 0 points or more, for example pruned=2")


def stage_drop_text(given: tuple[str, float]) -> str:
    """Return the text that `parse_stage_drop` reads back."""
    return f"{given[0]}={given[1]!r}"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What trains a module, and what says how good it is; from Python also the functions themselves.

    ``train(module)`` trains in place, or returns the module. With `epochs` it is one epoch, and is called so
    often; parameters of it that are named ``epoch`` (from 0), ``epochs`` and ``teacher`` are filled in.
    ``evaluate(module)`` returns a number, higher is better, the same for the same module.
    """

    train: Any = option(
        None, f"{_FUNCTION}: gets the module, and trains it in place.", metavar="FUNCTION",
        takes_objects=True, when_absent="none", essential=True,
    )  # fmt: skip
    evaluate: Any = option(
        None, f"{_FUNCTION}: gets a module, and returns how good it is: a number, higher is better.",
        metavar="FUNCTION", takes_objects=True, when_absent="none", essential=True,
    )  # fmt: skip
    epochs: int | None = option(
        None, "The function of --train is one epoch, and is called so often; parameters of it that are named "
        "epoch (from 0) and epochs are filled in.", low=1, when_absent="it is the whole training",
        essential=True,
    )  # fmt: skip
    seed: int = option(
        0,
        "Seed of the random numbers of torch, NumPy and Python, set before every cut and every training.",
        flag="--train-seed",
        low=0,
    )

    def __post_init__(self) -> None:
        if self.train is None:
            raise OptionError(f"nothing trains the module: --train, {_FUNCTION}.")


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a module may lose, in the unit of the evaluation's figure, counted from the module as loaded."""

    max_drop: float | None = option(
        None, "Largest loss of the evaluation's figure, of tuned modules and of the engine, in its own unit.",
        low=0, essential=True,
    )  # fmt: skip
    stage_drops: tuple[tuple[str, float], ...] = option(
        (), f"Largest loss of one step: {', '.join(STAGES_WITH_LIMITS)}. Repeatable.",
        flag="--max-stage-drop", metavar="STAGE=LOSS", parse=parse_stage_drop, write=stage_drop_text,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for stage, _ in self.stage_drops:
            if stage not in STAGES_WITH_LIMITS:
                known = ", ".join(STAGES_WITH_LIMITS)
                raise OptionError(f"--max-stage-drop knows no stage '{stage}': there are {known}.")

    @property
    def limits(self) -> Mapping[str, float]:
        """Stage -> the largest loss there, of the stages that have a limit."""
        everywhere = {} if self.max_drop is None else dict.fromkeys(_JUDGED, self.max_drop)
        return {**everywhere, **dict(self.stage_drops)}


_JUDGED = ("tuned", "form", "engine")
