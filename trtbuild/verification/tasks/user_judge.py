"""A judge of the user's own (``--judge``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.intervals import Estimate, Moments, percent
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    SampleScore,
    TaskScore,
    Worst,
)
from trtbuild.verification.user_function import UserFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.verification.batch import LabelledBatch

__all__ = ["BLIND", "OwnJudge", "Telling"]

BLIND = (
    "the judge gives outputs of zeros, and float's outputs in reverse order, the same figure as float's "
    "outputs, so it cannot tell wrong from right"
)
"""The `TaskScore.doubt` of a judge that cannot tell wrong from right."""

# More distinct values than this are no right-or-wrong answers.
_FEW = 2


class Telling(set[str]):
    """Names of judges that scored wrong outputs lower; it fills as they are called."""


class OwnJudge(Judge):
    """Calls ``judge(float_outputs, engine_outputs, labels, names)`` once per batch; higher is better.

    Outputs are output name -> array; labels are int ``[samples]`` or None. The judge returns one number per
    sample (then the figure has an interval) or one for the batch. Numbers that are all 0 or 100, or all 0 or
    1, count as wrong and right answers. A class is made once, called the same way, and asked for ``result()``
    at the end. The figure's name is the judge's attribute ``title``, or else the judge's name.

    The judge is also called with outputs that are surely wrong, until it scores some of them lower than
    float's. If it never does, its figure means nothing, and `TaskScore.doubt` says so.

    Args:
        name: the judge's name, as the user gave it.
        judge: the judge itself.
        telling: judges that are not tested again.
    """

    def __init__(
        self, name: str, judge: Callable[..., Any], telling: Telling | None = None
    ) -> None:
        self._given = judge
        self._telling = Telling() if telling is None else telling
        self._title = str(getattr(judge, "title", None) or getattr(judge, "__name__", name))
        self._judge = UserFunction("judge", name, judge)
        self._scores = Moments()
        self._values: set[float] = set()
        self._count = 0
        self._is_by_sample = not self._judge.is_whole
        self._worst = Worst(perfect=math.inf)

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        names = batch.names
        answer = self._judge(reference, candidate, batch.labels, names)
        if self._judge.name not in self._telling and self._tells(reference, batch):
            self._telling.add(self._judge.name)
        self._count += len(names)
        if self._judge.is_whole:
            return
        scores = self._judge.scores(answer, len(names))
        self._is_by_sample &= scores.size == len(names)
        for name, score in zip(names, np.broadcast_to(scores, (len(names),))):
            self._scores.add(float(score))
            if len(self._values) <= _FEW:
                self._values.add(float(score))
            self._worst.add(name, float(score))

    @property
    def _right(self) -> float:
        """The number of a right answer if all answers are right or wrong; 0 if they are something else."""
        found = self._values - {0.0}
        # if all are wrong, assume 1: with 100, a limit of 0.5 would be within one answer of 0 of 100 samples
        return next((top for top in (1.0, 100.0) if found <= {top}), 0.0)

    def result(self) -> TaskScore:
        """Return the mean over samples, or the result of the class."""
        step = 0.0
        if self._judge.is_whole:
            value = self._judge.final()
            estimate = Estimate(value, -math.inf, math.inf)
        else:
            estimate = self._scores.estimate()
            if not self._is_by_sample:
                estimate = Estimate(estimate.value, -math.inf, math.inf)
            elif top := self._right:
                # equal answers have a spread of 0, which says nothing about further samples: use Wilson's
                # interval
                share = percent(round(self._count * estimate.value / top), self._count)
                ends = (top * end / 100.0 for end in (share.value, share.low, share.high))
                estimate, step = Estimate(*ends), top / self._count
        worst = self._worst.result() if self._is_by_sample else ()
        return TaskScore(
            self._title,
            f"by {self._judge.name}",
            self._count,
            Figure(self._title, "", estimate, step),
            (),
            worst,
            self._doubt(),
        )

    def _doubt(self) -> str:
        """Say that the figure means nothing if the judge finds wrong outputs as good as float's own."""
        return BLIND if self._count and self._judge.name not in self._telling else ""

    def _tells(self, reference: Outputs, batch: LabelledBatch) -> bool:
        """Whether wrong outputs get another figure than float's own, or make the judge fail."""
        right = self._asked(reference, reference, batch)
        if right is None:
            return True
        for wrong in (_zeros(reference), _reversed(reference)):
            found = self._asked(reference, wrong, batch)
            if found is None or not np.array_equal(right, found):
                return True
        return False

    def _asked(
        self, reference: Outputs, candidate: Outputs, batch: LabelledBatch
    ) -> np.ndarray | None:
        """The answer of a fresh judge for one batch; None if it fails."""
        try:
            judge = UserFunction("judge", self._judge.name, self._given)
            answer = judge(reference, candidate, batch.labels, batch.names)
            if judge.is_whole:
                return np.asarray([judge.final()])
            return judge.scores(answer, len(batch.names))
        except OptionError:
            return None

    @property
    def worst(self) -> tuple[SampleScore, ...]:
        """The samples with the lowest scores so far."""
        return self._worst.result() if self._is_by_sample else ()


def _zeros(outputs: Outputs) -> Outputs:
    return {name: np.zeros_like(array) for name, array in outputs.items()}


def _reversed(outputs: Outputs) -> Outputs:
    """The same values in reverse order: the samples swap their answers, and each answer is reversed."""
    return {name: array.reshape(-1)[::-1].reshape(array.shape) for name, array in outputs.items()}
