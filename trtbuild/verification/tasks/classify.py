"""Classification: the same class as float; with labels, top-1 of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.intervals import percent
from trtbuild.verification.metrics import class_scores
from trtbuild.verification.tasks.base import Figure, Outputs, TaskScore, Worst

if TYPE_CHECKING:
    from trtbuild.verification.batch import LabelledBatch

__all__ = ["Classify"]


class Classify:
    """Counts the samples whose best class is the float network's.

    Args:
        output: the class scores; None for the first output that looks like them.
    """

    def __init__(self, output: str | None = None) -> None:
        self._output = output
        self._count = self._same = self._labelled = 0
        self._right = np.zeros(2, np.int64)
        self._worst = Worst()

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        names = batch.names
        output = self._output = self._output or _scores_of(reference, len(names))
        x, y = (class_scores(one[output], len(names)) for one in (reference, candidate))
        if x is None or y is None:
            raise OptionError(f"--task classify: output '{output}' is no [samples, classes].")
        wanted, found = x.argmax(1), y.argmax(1)
        self._count += len(names)
        self._same += int(np.count_nonzero(wanted == found))
        for name, same in zip(names, wanted == found):
            self._worst.add(name, 100.0 * float(same))
        if batch.labels is not None:
            self._labelled += len(names)
            self._right += [np.count_nonzero(one == batch.labels) for one in (wanted, found)]

    def result(self) -> TaskScore:
        """Return the share of equal classes, with Wilson's interval."""
        main = Figure("same class", "%", percent(self._same, self._count))
        others: tuple[Figure, ...] = ()
        if self._labelled:
            right = (percent(int(count), self._labelled) for count in self._right)
            others = tuple(Figure(name, "%", one) for name, one in zip(_TOP1, right))
        settings = f"output '{self._output}'"
        return TaskScore("classify", settings, self._count, main, others, self._worst.result())


_TOP1 = ("top-1 of float", "top-1 of the engine")


def _scores_of(outputs: Outputs, count: int) -> str:
    for name, array in outputs.items():
        if class_scores(array, count) is not None:
            return name
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise OptionError(
        f"--task classify needs an output [samples, classes]; the outputs are {shapes}."
    )
