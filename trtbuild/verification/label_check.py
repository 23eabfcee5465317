"""Checks that the labels fit the float network: every figure against wrong labels is void."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError
from trtbuild.verification.intervals import percent, proportion
from trtbuild.verification.metrics import class_scores
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.verification.intervals import Estimate

__all__ = ["FloatAnswers", "LabelCheck", "check_range"]

_CONFIDENCE = 0.99
# A network that is surely below this part of the way from chance to perfect does not know the classes.
_LEAST_PART = 0.25
_SHIFTS = (-1, 1)
_SURELY_BETTER = 2.0


def check_range(labels: np.ndarray, num_classes: int, output: str) -> None:
    """Check that all labels lie between 0 and `num_classes` - 1.

    Raises:
        DataError: a label lies outside.
    """
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(
            f"labels lie between {labels.min()} and {labels.max()}, but output"
            f" '{output}' has {counted(num_classes, 'class', 'classes')} (0 to {num_classes - 1})."
        )


class LabelCheck:
    """Counts the float network's right answers, for the labels as given and for labels shifted by one.

    Args:
        output: name of the class scores; None for the first output that looks like them.
    """

    def __init__(self, output: str | None = None) -> None:
        self._output = output
        self._num_samples = 0
        self._num_classes = 0
        self._right = dict.fromkeys((0, *_SHIFTS), 0)

    def add(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
        """Take the float network's outputs of one batch and the labels, int ``[images]`` or None.

        Raises:
            DataError: a label is not one of the network's classes.
        """
        if labels is None:
            return
        for name, array in outputs.items():
            scores = class_scores(array, len(labels))
            if self._output not in (None, name) or scores is None:
                continue
            check_range(labels, scores.shape[1], name)
            found = scores.argmax(1)
            self._num_samples += len(labels)
            self._num_classes = scores.shape[1]
            for shift in self._right:
                self._right[shift] += int(np.count_nonzero(found == labels + shift))
            return

    @property
    def right_percent(self) -> Estimate | None:
        """Top-1 so far, with Wilson's interval; None without labels."""
        return percent(self._right[0], self._num_samples) if self._num_samples else None

    @property
    def num_samples(self) -> int:
        """Labelled samples so far."""
        return self._num_samples

    def raise_at_chance(self) -> None:
        """Check that the labels so far can belong to the network.

        They cannot if the 99 % interval (Wilson) of top-1 reaches down to chance and ends below a quarter of
        the way from chance to 100 %, or if labels that are all shifted by one fit far better.

        Raises:
            DataError: they cannot.
        """
        if not self._num_samples:
            return
        right = self._right[0]
        given = proportion(right, self._num_samples, _CONFIDENCE)
        shift = max(_SHIFTS, key=self._right.__getitem__)
        shifted = proportion(self._right[shift], self._num_samples, _CONFIDENCE)
        is_off = shifted.low > max(_SURELY_BETTER * given.high, _LEAST_PART)
        chance = 1 / self._num_classes
        at_chance = given.low <= chance and given.high < chance + _LEAST_PART * (1 - chance)
        if not (at_chance or is_off):
            return
        hint = ""
        if is_off:
            way = "lower" if shift < 0 else "higher"
            hint = f" With every label one {way} it is right on {self._right[shift]}: labels off by one?"
        level = ", no better than chance" if at_chance else ""
        raise DataError(
            f"the float network is right on {right} of "
            f"{counted(self._num_samples, 'labelled sample')}{level} "
            f"({self._num_classes} classes): check the preprocessing, the color order and the labels.{hint}"
        )


class FloatAnswers:
    """Counts right answers of the float network while it is calibrated; any thread may call it.

    Args:
        outputs: names of the network's outputs; the first that looks like class scores is used.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self.outputs = tuple(outputs)
        self.check = LabelCheck()
        self._lock = threading.Lock()

    def hear(self, outputs: Mapping[str, np.ndarray], label: int) -> None:
        """Take the outputs of one sample. A network with a fixed batch repeats the sample: row 0 is used.

        Raises:
            DataError: the label is not one of the network's classes.
        """
        first = {name: array[:1] for name, array in outputs.items() if array.ndim}
        with self._lock:
            self.check.add(first, np.array([label]))
