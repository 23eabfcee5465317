"""Classification: the same class as float; with labels, top-1 of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.model.parts import Part
from trtbuild.verification.intervals import percent
from trtbuild.verification.metrics import class_scores
from trtbuild.verification.parts import PartMetrics
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    Seen,
    TaskScore,
    Worst,
    named,
    share_of,
)
from trtbuild.verification.views import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.verification.batch import LabelledBatch

__all__ = ["Classify"]


class Classify(Judge):
    """Counts the samples whose best class is also the float network's.

    Args:
        output: the class scores; None for the first output that looks like them.
    """

    def __init__(self, output: str | None = None) -> None:
        self._output = output
        self._count = self._same = self._labelled = 0
        self._right = np.zeros(2, np.int64)
        self._classes: tuple[set[int], set[int]] = (set(), set())
        self._scores: PartMetrics | None = None
        self._worst = Worst()

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        names = batch.names
        output = self._output = self._output or _scores_of(reference, len(names))
        x, y = (class_scores(one[output], len(names)) for one in (reference, candidate))
        if x is None or y is None:
            raise OptionError(f"--task classify: output '{output}' is not [samples, classes].")
        wanted, found = x.argmax(1), y.argmax(1)
        self._count += len(names)
        self._same += int(np.count_nonzero(wanted == found))
        for known, one in zip(self._classes, (wanted, found)):
            known.update(one.tolist())
        self._scores = self._scores or PartMetrics(Part(1, 0, x.shape[1], x.shape[1]))
        finite = np.isfinite(x).all(1) & np.isfinite(y).all(1)
        self._scores.add(x[finite], y[finite])
        for name, same in zip(names, wanted == found):
            self._worst.add(name, 100.0 * float(same))
        if batch.labels is not None:
            self._labelled += len(names)
            self._right += [np.count_nonzero(one == batch.labels) for one in (wanted, found)]

    def result(self) -> TaskScore:
        """Return the share of equal classes, with Wilson's interval."""
        main = share_of("same class", self._same, self._count)
        others: tuple[Figure, ...] = ()
        if self._labelled:
            right = (percent(int(count), self._labelled) for count in self._right)
            others = tuple(Figure(name, "%", one) for name, one in zip(_TOP1, right))
        settings = f"output '{self._output}'"
        return TaskScore(
            "classify", settings, self._count, main, others, self._worst.result(), self._doubt()
        )

    def answers(self, seen: Seen) -> tuple[Answer, Answer] | None:
        """Return both networks' best class with its score, and the label if there is one."""
        given = [
            class_scores(one[self._output or ""], len(seen.batch.names)) for one in seen.outputs
        ]
        if given[0] is None or given[1] is None:
            return None
        labels, row = seen.batch.labels, seen.row
        label = None if labels is None else int(labels[row])
        return _best(given[0][row], label, seen.names), _best(given[1][row], label, seen.names)

    def _doubt(self) -> str:
        """Why the agreement says little: an engine stuck on one class can agree with float by luck."""
        of_float, of_engine = map(len, self._classes)
        if self._count < 2 or of_engine > 1 or self._scores is None:
            return ""
        if of_float > 1:
            return (
                f"the engine answers one class on all {self._count} samples, and float {of_float}"
            )
        same = f"float answers one class on all {self._count} samples"
        if self._scores.hardly_varies:
            return f"{same}, with nearly the same scores"
        if self._scores.result().sqnr_db.value < _FOLLOWS_DB:
            return f"{same}, and the engine's scores do not follow float's"
        return ""


def _best(scores: np.ndarray, label: int | None, names: Mapping[int, str]) -> Answer:
    best = int(scores.argmax())
    text = f"{named(best, names)}, score {float(scores[best]):.3g}"
    if label is not None:
        text += ", right" if best == label else f", wrong: it is {named(label, names)}"
    return Answer(text)


# SQNR below which the engine's scores do not follow float's: the error has half of the signal's power.
_FOLLOWS_DB = 3.0

_TOP1 = ("top-1 of float", "top-1 of the engine")


def _scores_of(outputs: Outputs, count: int) -> str:
    for name, array in outputs.items():
        if class_scores(array, count) is not None:
            return name
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise OptionError(
        f"--task classify needs an output [samples, classes]; the outputs are {shapes}."
    )
