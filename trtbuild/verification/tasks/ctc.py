"""Text by CTC: the best class of each step, without repetitions and blanks (Graves et al. 2006)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.intervals import ratio_of_sums
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    Seen,
    TaskScore,
    Worst,
    only,
    share_of,
)
from trtbuild.verification.views import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.verification.batch import LabelledBatch

__all__ = ["CTC", "best_path", "edit_distance"]


# Steps per character, on average; more do not look like CTC.
_LONGEST_PEAK = 3.0


class CTC(Judge):
    """Compares the texts of both networks; an output is ``[samples, steps, classes]`` or has the steps first.

    The blank is class 0 or the last class, whichever the float network answers more often in the first batch.
    A sample in which neither network reads a character is not counted.

    Args:
        is_guess: whether the user has not said that the outputs are texts; `add` then refuses outputs that do
            not look like it: blanks in less than half of the steps, or characters that last for many steps.
    """

    def __init__(self, *, is_guess: bool = False) -> None:
        self._is_guess = is_guess
        self._output = ""
        self._blank: int | None = None
        self._count = 0
        self._same: list[bool] = []
        self._errors: list[float] = []
        self._lengths: list[float] = []
        self._worst = Worst()

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        self._output = self._output or only(reference, (3,), "ctc", "[samples, steps, classes]")
        count = len(batch.names)
        x, y = (_by_sample(one[self._output], count) for one in (reference, candidate))
        wanted, found = x.argmax(-1), y.argmax(-1)
        if self._blank is None:
            last = x.shape[-1] - 1
            is_last = np.count_nonzero(wanted == last) > np.count_nonzero(wanted == 0)
            self._blank = last if is_last else 0
            if self._is_guess and not _is_peaked(wanted, self._blank):
                raise OptionError("the classes of the steps do not look like a text with blanks.")
        for name, ours, theirs in zip(batch.names, wanted, found):
            text, other = best_path(ours, self._blank), best_path(theirs, self._blank)
            errors = edit_distance(text, other)
            self._count += 1
            if not text and not other:
                continue  # nothing to read: a network that always reads nothing would get this right, too
            self._same.append(errors == 0)
            self._errors.append(float(errors))
            self._lengths.append(float(len(text)))
            self._worst.add(name, 100.0 * (1 - errors / max(len(text), 1)))

    def result(self) -> TaskScore:
        """Return the share of equal texts (Wilson), and character errors per character (bootstrap)."""
        count = len(self._same)
        main = share_of("same text", sum(self._same), count) if count else None
        errors = ratio_of_sums(self._errors, self._lengths)
        others = () if errors is None else (Figure("character errors", "%", errors.times(100.0)),)
        settings = f"output '{self._output}', blank {self._blank}"
        return TaskScore("ctc", settings, self._count, main, others, self._worst.result())

    def answers(self, seen: Seen) -> tuple[Answer, Answer]:
        """Return both texts, as class numbers if the classes have no names."""
        of_float, of_engine = (
            _by_sample(one[self._output], len(seen.batch.names))[seen.row].argmax(-1)
            for one in seen.outputs
        )
        blank = self._blank or 0
        return (
            Answer(_written(best_path(of_float, blank), seen.names)),
            Answer(_written(best_path(of_engine, blank), seen.names)),
        )


def _written(text: tuple[int, ...], names: Mapping[int, str]) -> str:
    if not text:
        return "(nothing)"
    if all(one in names for one in text):
        return "".join(names[one] for one in text)
    return "classes " + " ".join(map(str, text))


def _is_peaked(classes: np.ndarray, blank: int) -> bool:
    """Whether classes, int ``[samples, steps]``, look trained by CTC: short peaks between blanks.

    Classes of frames (phones, activities, tags) last for many steps instead (Graves 2012, chapter 7).
    """
    is_character = classes != blank
    if not 0 < np.count_nonzero(is_character) <= classes.size / 2:
        return False
    starts = is_character.copy()
    starts[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    return bool(np.count_nonzero(is_character) <= _LONGEST_PEAK * np.count_nonzero(starts))


def _by_sample(array: np.ndarray, count: int) -> np.ndarray:
    swapped = array.shape[0] != count and array.shape[1] == count
    return array.swapaxes(0, 1) if swapped else array


def best_path(classes: np.ndarray, blank: int) -> tuple[int, ...]:
    """Return the text of the best classes, int ``[steps]``: repetitions merged, then blanks dropped."""
    first = np.ones(len(classes), bool)
    first[1:] = classes[1:] != classes[:-1]
    return tuple(int(one) for one in classes[first & (classes != blank)])


def edit_distance(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Return the minimum number of insertions, deletions and substitutions between two (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
