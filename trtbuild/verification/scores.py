"""Figures that need more than the two outputs: top-1 against labels, and the user's own metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError
from trtbuild.verification.intervals import (
    Estimate,
    Moments,
    difference_of_proportions,
    percent,
)
from trtbuild.verification.label_check import check_range
from trtbuild.verification.metrics import class_scores
from trtbuild.verification.user_function import UserFunction
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.options.compare import Metric

__all__ = ["Accuracy", "AccuracyCount", "MetricAverage", "MetricScore"]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of both networks on the labelled images.

    Attributes:
        output: the class scores that were compared with the labels.
        num_images: labelled images.
        reference_percent, candidate_percent: top-1, with Wilson's interval.
        drop_points: reference minus candidate, percentage points; its interval is that of the paired
            difference, so it is much tighter than the two above.
        only_reference_right, only_candidate_right: images that only this network got right.
    """

    output: str
    num_images: int
    reference_percent: Estimate
    candidate_percent: Estimate
    drop_points: Estimate
    only_reference_right: int
    only_candidate_right: int


class AccuracyCount:
    """Counts right answers of both networks, batch by batch."""

    def __init__(self, output: str) -> None:
        self.output = output
        self._counts = np.zeros((2, 2), np.int64)

    def add(self, reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray) -> None:
        """Take one batch of class scores and their labels, int ``[images]``.

        Raises:
            DataError: the labels do not fit the scores.
        """
        x, y = class_scores(reference, len(labels)), class_scores(candidate, len(labels))
        if x is None or y is None:
            raise DataError(
                f"there are labels, but output '{self.output}' of shape {list(reference.shape)}"
                f" does not hold class scores of {counted(len(labels), 'sample')}."
            )
        check_range(labels, x.shape[1], self.output)
        right, right_too = x.argmax(1) == labels, y.argmax(1) == labels
        np.add.at(self._counts, (right.astype(int), right_too.astype(int)), 1)

    def result(self) -> Accuracy | None:
        """Return the accuracy so far; None when no image had a label."""
        total = int(self._counts.sum())
        if not total:
            return None
        only_reference, only_candidate = int(self._counts[1, 0]), int(self._counts[0, 1])
        drop = difference_of_proportions(only_reference, only_candidate, total)
        return Accuracy(
            output=self.output,
            num_images=total,
            reference_percent=percent(int(self._counts[1].sum()), total),
            candidate_percent=percent(int(self._counts[:, 1].sum()), total),
            drop_points=Estimate(100 * drop.value, 100 * drop.low, 100 * drop.high),
            only_reference_right=only_reference,
            only_candidate_right=only_candidate,
        )


@dataclass(frozen=True)
class MetricScore:
    """The user's metric on both networks, higher is better, in the metric's own unit.

    The interval of the drop exists (is finite) when the metric gives one score an image.
    """

    name: str
    num_images: int
    reference: float
    candidate: float
    drop: Estimate


class MetricAverage:
    """Averages the user's metric over images, for both networks.

    The metric is called as ``metric(outputs, labels, names)``, once per batch and network, and returns one
    score per image, or one number for the batch. A metric that is not an average over images (mAP) is a
    class: each network gets an object of it, which is called the same way (the return values are ignored)
    and asked for ``result()`` at the end.
    """

    def __init__(self, name: str, metric: Metric) -> None:
        self.name = name
        self._pair = [UserFunction("metric", name, metric) for _ in range(2)]
        self._whole = self._pair[0].is_whole
        self._drop = Moments()
        self._sums = np.zeros(2)
        self._num_images = 0
        self._per_image = True

    def add(
        self,
        reference: Mapping[str, np.ndarray],
        candidate: Mapping[str, np.ndarray],
        labels: np.ndarray | None,
        names: Sequence[str],
    ) -> None:
        """Take one batch.

        Raises:
            OptionError: the metric raised an error, or did not return finite numbers.
        """
        x, y = (
            metric(outputs, labels, names)
            for metric, outputs in zip(self._pair, (reference, candidate))
        )
        self._num_images += len(names)
        if self._whole:
            return
        count = len(names)
        x_scores, y_scores = (
            metric.scores(answer, count) for metric, answer in zip(self._pair, (x, y))
        )
        self._per_image &= x_scores.size == count and y_scores.size == count
        x_scores, y_scores = (np.broadcast_to(one, (count,)) for one in (x_scores, y_scores))
        self._sums += (x_scores.sum(), y_scores.sum())
        for drop in x_scores - y_scores:
            self._drop.add(float(drop))

    def result(self) -> MetricScore:
        """Return the averages so far (the ``result()`` of a metric class).

        Raises:
            OptionError: the metric's ``result()`` raised an error or gave no finite number.
        """
        if self._whole:
            x, y = (metric.final() for metric in self._pair)
            drop = Estimate(x - y, -math.inf, math.inf)
        else:
            x, y = (float(value) for value in self._sums / max(self._num_images, 1))
            drop = self._drop.estimate()
            if not self._per_image:
                drop = Estimate(drop.value, -math.inf, math.inf)
        return MetricScore(self.name, self._num_images, x, y, drop)
