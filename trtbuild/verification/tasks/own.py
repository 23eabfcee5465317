"""A judge of the user's own."""

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

__all__ = ["BLIND", "OwnJudge"]

BLIND = (
    "the judge gives outputs of zeros, and float's own in reverse order, the same figure as float's own, "
    "so it cannot tell wrong from right"
)
"""The doubt about such a judge."""

# Answers that are right or wrong have two values.
_FEW = 2


class OwnJudge(Judge):
    """Asks ``judge(float_outputs, engine_outputs, labels, names)`` once a batch; higher is better.

    Outputs are output name -> array; labels are int ``[samples]`` or None. The answer is one number a sample
    (then the figure has an interval) or one for the batch; numbers that are all 0 or 100, or all 0 or 1,
    count as wrong and right answers. A class is made once, called the same way, and asked for ``result()`` at
    the end. The figure's name is the judge's attribute ``title``, or else its own.

    It is asked about outputs that are surely wrong, too, until it has told some from float's own. If in no
    batch it does, it judges nothing, and `TaskScore.doubt` says so.

    Args:
        name: as the user named it.
        judge: what the name stands for.
        telling: names of judges that have told wrong outputs from right ones, and are not asked again.
    """

    def __init__(
        self, name: str, judge: Callable[..., Any], telling: set[str] | None = None
    ) -> None:
        self._given = judge
        self._telling = set() if telling is None else telling
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
        """The number of a right answer, where each is right or wrong; 0 where they are something else."""
        found = self._values - {0.0}
        # where all are wrong it is not told: of 1, for 0 of 100 a limit of 0.5 would be within one answer
        return next((top for top in (1.0, 100.0) if found <= {top}), 0.0)

    def result(self) -> TaskScore:
        """Return the mean over samples, or the class's answer."""
        step = 0.0
        if self._judge.is_whole:
            value = self._judge.final()
            estimate = Estimate(value, -math.inf, math.inf)
        else:
            estimate = self._scores.estimate()
            if not self._is_by_sample:
                estimate = Estimate(estimate.value, -math.inf, math.inf)
            elif top := self._right:
                # of equal answers a spread is 0, and says nothing of those to come
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
        """Why the figure says nothing: the judge finds wrong outputs as good as float's own."""
        return BLIND if self._count and self._judge.name not in self._telling else ""

    def _tells(self, reference: Outputs, batch: LabelledBatch) -> bool:
        """Whether float's own outputs get another figure than wrong ones; or the judge cannot read these."""
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
        """What the judge alone says of a batch; None where it cannot."""
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
    """The same values in reverse order: other samples' answers, and within each another order."""
    return {name: array.reshape(-1)[::-1].reshape(array.shape) for name, array in outputs.items()}
