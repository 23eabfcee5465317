"""How far one output is from its float reference, accumulated over batches in constant memory.

With x the reference and y the candidate, over the values of one image (row i) or of all images:

    SQNR         10 log10( sum x^2 / sum (x - y)^2 )             dB
    relative L2  sqrt( sum (x - y)^2 / sum x^2 )                 = 10^(-SQNR / 20)
    cosine       sum x y / sqrt( sum x^2 sum y^2 )               mean over images
    max error    max |x - y|                                     in the output's unit
    top-1        share of images with argmax x = argmax y        percent
    top-k        mean of |top-k of x  and  top-k of y| / k       percent
    divergence   mean of sum p ln(p / q), p and q the softmax of x and y; nats
    equal        share of equal elements, for integer outputs    percent

An output of unlike parts (boxes beside scores) also has an SQNR for each part.
All sums are float64. The SQNR is that of the sums over all images: with a mean of decibels, one easy image
could hide a hard one. Its interval takes images as the independent draws.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.exponential import exp
from trtbuild.json_codec import NOT_IN_JSON
from trtbuild.verification.intervals import (
    DECIBELS_PER_NEPER,
    Estimate,
    Moments,
    PairMoments,
    decibels,
    inner_product,
    percent,
)
from trtbuild.verification.parts import PartComparison, PartMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbuild.model.parts import Part

__all__ = ["ImageComparison", "OutputComparison", "OutputMetrics", "class_scores", "decibels"]

# Per-image SQNR is kept as a histogram of 1 dB bins from here on; the end bins take values beyond.
SQNR_BINS_FROM_DB = -20
NUM_SQNR_BINS = 121

_NOTHING_FINITE = Estimate(-math.inf, -math.inf, -math.inf)


@dataclass(frozen=True)
class ImageComparison:
    """One image's error in one output; SQNR is ``-inf`` when a value was not finite."""

    name: str
    sqnr_db: float
    cosine: float
    max_error: float


@dataclass(frozen=True)
class OutputComparison:
    """All figures of one output.

    Attributes:
        name: the output's name.
        kind: ``class scores``, ``values`` or ``integers``; decides which figures it has.
        num_images: rows compared.
        num_values: elements compared.
        sqnr_db, relative_l2, cosine: see the module; None for integers.
        max_error: largest absolute difference; 0 when identical.
        top1_agreement_percent, topk_agreement_percent: None unless class scores.
        top_k: the k of the top-k agreement.
        divergence_nats: Kullback-Leibler divergence of the class probabilities; None unless class
            scores.
        equal_percent: share of equal elements; None unless integers.
        num_non_finite: elements of the candidate that are NaN or infinite.
        num_reference_non_finite: the same of the reference.
        num_incomparable: images whose shapes differ between the two (data-dependent outputs).
        sqnr_histogram: number of images per 1 dB bin, from `SQNR_BINS_FROM_DB` on.
        worst: the images with the largest error, worst first.
        parts: the unlike parts, in order (`trtbuild.verification.parts`); empty if there is only one.
        worst_part: name of the part with the lowest SQNR; empty without parts.
        is_said_to_be_scores: whether the user says that it holds class scores; not recorded.
    """

    name: str
    kind: str
    num_images: int
    num_values: int
    sqnr_db: Estimate | None
    relative_l2: Estimate | None
    cosine: Estimate | None
    max_error: float
    top1_agreement_percent: Estimate | None
    topk_agreement_percent: Estimate | None
    top_k: int
    divergence_nats: Estimate | None
    equal_percent: float | None
    num_non_finite: int
    num_reference_non_finite: int
    num_incomparable: int
    sqnr_histogram: tuple[int, ...]
    worst: tuple[ImageComparison, ...]
    parts: tuple[PartComparison, ...] = ()
    worst_part: str = ""
    is_said_to_be_scores: bool = field(
        default=False, compare=False, repr=False, metadata=NOT_IN_JSON
    )

    @property
    def judged_sqnr_db(self) -> Estimate | None:
        """The SQNR of the worst part, or of the whole output if it has no parts. None for integers."""
        found = {part.name: part.sqnr_db for part in self.parts}
        return found.get(self.worst_part, self.sqnr_db)

    @property
    def judged_cosine(self) -> tuple[str, Estimate | None]:
        """The lowest cosine of the output and its parts, after the words that say which of them it is."""
        return self._worst_of("cosine", self.cosine, lambda one: one.value)

    @property
    def judged_relative_l2(self) -> tuple[str, Estimate | None]:
        """The same for the largest relative L2."""
        return self._worst_of("relative_l2", self.relative_l2, lambda one: -one.value)

    def _worst_of(
        self, name: str, whole: Estimate | None, order: Callable[[Estimate], float]
    ) -> tuple[str, Estimate | None]:
        found = [(f"'{self.name}', {part.name}", getattr(part, name)) for part in self.parts]
        known = [(f"'{self.name}'", whole), *found]
        judged = [(what, one) for what, one in known if one is not None]
        return min(judged, key=lambda one: order(one[1]), default=known[0])

    @property
    def judged(self) -> str:
        """The output or part that `judged_sqnr_db` belongs to, in words."""
        return f"'{self.name}', {self.worst_part}" if self.worst_part else f"'{self.name}'"


def class_scores(array: np.ndarray, num_images: int) -> np.ndarray | None:
    """Return `array` as ``[images, classes]`` if it looks like class scores, else None.

    It does when it is float, its first axis is the images, there are at least two classes, and
    every further axis has length 1 (``[N, 1000]``, ``[N, 1000, 1, 1]``).
    """
    if array.ndim < 2 or array.shape[0] != num_images or not _is_float(array):
        return None
    classes = array.shape[1]
    if classes < 2 or array.size != num_images * classes:
        return None
    return array.reshape(num_images, classes)


def _is_float(array: np.ndarray) -> bool:
    # ml_dtypes' bfloat16 has the kind 'V'
    return array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat16", "float8"))


class OutputMetrics:
    """Accumulates the error of one output, batch by batch.

    Args:
        name: the output's name.
        top_k: k of the top-k agreement; measured only with more classes than that.
        num_worst: how many of the worst images are kept.
        as_scores: whether it may count as class scores; None lets `class_scores` decide.
        parts: its unlike parts; with several of them, each gets its own figures.
    """

    def __init__(
        self,
        name: str,
        top_k: int = 5,
        num_worst: int = 10,
        as_scores: bool | None = None,
        parts: Sequence[Part] = (),
    ) -> None:
        self.name = name
        self._top_k = top_k
        self._num_worst = num_worst
        self._as_scores = as_scores
        self._kind = "values"
        self._power = PairMoments()
        self._cosine = Moments()
        self._overlap = Moments()
        self._divergence = Moments()
        self._num_images = 0
        self._num_values = 0
        self._num_top1_equal = 0
        self._num_scored = 0
        self._num_equal = 0
        self._max_error = 0.0
        self._num_non_finite = 0
        self._num_reference_non_finite = 0
        self._num_incomparable = 0
        self._histogram = np.zeros(NUM_SQNR_BINS, np.int64)
        self._worst: list[tuple[float, float, int, ImageComparison]] = []
        self._parts = {part: PartMetrics(part) for part in parts} if len(parts) > 1 else {}

    def add(self, reference: np.ndarray, candidate: np.ndarray, names: Sequence[str]) -> None:
        """Take one batch.

        Args:
            reference: the float output. If its first axis is not the images, the whole output counts as
                one row.
            candidate: the same output of the network under test.
            names: the images' names.
        """
        if not _is_float(reference):
            self._kind = "integers"
        if reference.shape != candidate.shape:
            self._num_incomparable += len(names)
            return
        num_images = len(names)
        self._num_values += reference.size
        rows = num_images if reference.ndim and reference.shape[0] == num_images else 1
        labels = list(names) if rows == num_images else [f"{names[0]} ... {names[-1]}"]
        if _is_float(reference):
            self._add_values(_rows(reference, rows), _rows(candidate, rows), labels)
            self._add_parts(reference, candidate)
        else:
            self._add_integers(reference, candidate, labels)
        self._add_scores(reference, candidate, num_images)

    def _add_values(self, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
        for name, reference, candidate in zip(names, x, y):
            self._num_images += 1
            bad, bad_reference = _num_non_finite(candidate), _num_non_finite(reference)
            self._num_non_finite += bad
            self._num_reference_non_finite += bad_reference
            if bad or bad_reference:
                self._keep(ImageComparison(name, -math.inf, math.nan, math.inf))
                continue
            self._add_image(name, reference.astype(np.float64), candidate.astype(np.float64))

    def _add_parts(self, x: np.ndarray, y: np.ndarray) -> None:
        if not all(part.fits(x) for part in self._parts):
            self._parts = {}  # the output's real shape contradicts the graph
            return
        for metrics in self._parts.values():
            metrics.add(x, y)

    def _add_image(self, name: str, x: np.ndarray, y: np.ndarray) -> None:
        error = x - y
        signal, noise = inner_product(x, x), inner_product(error, error)
        cosine = _cosine(inner_product(x, y), signal, inner_product(y, y))
        largest = float(np.max(np.abs(error), initial=0.0))
        self._power.add(signal, noise)
        self._cosine.add(cosine)
        self._max_error = max(self._max_error, largest)
        sqnr = decibels(signal, noise)
        place = min(max(sqnr - SQNR_BINS_FROM_DB, 0.0), NUM_SQNR_BINS - 1)
        self._histogram[int(place)] += 1
        self._keep(ImageComparison(name, sqnr, cosine, largest))

    def _keep(self, image: ImageComparison) -> None:
        # A heap whose smallest item is the least bad; among equals, the earlier image is kept.
        item = (-image.sqnr_db, image.max_error, -self._num_images, image)
        if len(self._worst) < self._num_worst:
            heapq.heappush(self._worst, item)
        elif self._worst:
            heapq.heappushpop(self._worst, item)

    def _add_integers(self, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
        self._num_images += len(names)
        self._num_equal += int(np.count_nonzero(x == y))
        if x.dtype.kind in "iu":
            largest = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)), initial=0.0)
            self._max_error = max(self._max_error, float(largest))

    def _add_scores(self, reference: np.ndarray, candidate: np.ndarray, num_images: int) -> None:
        if self._as_scores is False:
            return
        x, y = class_scores(reference, num_images), class_scores(candidate, num_images)
        if x is None or y is None:
            return
        self._kind = "class scores"
        self._num_scored += num_images
        self._num_top1_equal += int(np.count_nonzero(x.argmax(1) == y.argmax(1)))
        for divergence in _divergences(x, y):
            self._divergence.add(float(divergence))
        if x.shape[1] > self._top_k:
            for top_x, top_y in zip(_top(x, self._top_k).tolist(), _top(y, self._top_k).tolist()):
                # not `np.intersect1d`: it takes twenty times as long, and imports numpy.ma first
                self._overlap.add(100.0 * len(set(top_x).intersection(top_y)) / self._top_k)

    def result(self) -> OutputComparison:
        """Return all figures so far."""
        values = self._kind != "integers"
        log_ratio = self._power.log_ratio() if self._power.numerator.count else _NOTHING_FINITE
        scores = self._kind == "class scores"
        parts = tuple(metrics.result() for metrics in self._parts.values()) if values else ()
        worst = min(parts, key=lambda part: part.sqnr_db.value, default=None)
        return OutputComparison(
            name=self.name,
            kind=self._kind,
            num_images=self._num_images,
            num_values=self._num_values,
            sqnr_db=log_ratio.times(DECIBELS_PER_NEPER) if values else None,
            relative_l2=_amplitude(log_ratio) if values else None,
            cosine=self._mean_cosine() if values else None,
            max_error=self._max_error,
            top1_agreement_percent=percent(self._num_top1_equal, self._num_scored)
            if scores
            else None,
            topk_agreement_percent=self._overlap.estimate() if self._overlap.count else None,
            top_k=self._top_k,
            divergence_nats=self._mean_divergence() if scores else None,
            equal_percent=100.0 * self._num_equal / max(self._num_values, 1)
            if self._kind == "integers"
            else None,
            num_non_finite=self._num_non_finite,
            num_reference_non_finite=self._num_reference_non_finite,
            num_incomparable=self._num_incomparable,
            sqnr_histogram=tuple(int(count) for count in self._histogram),
            worst=tuple(item[-1] for item in sorted(self._worst, reverse=True)),
            parts=parts,
            worst_part="" if worst is None else worst.name,
            is_said_to_be_scores=bool(self._as_scores),
        )

    def _mean_divergence(self) -> Estimate:
        if not self._divergence.count:
            return Estimate(math.inf, math.inf, math.inf)
        return self._divergence.estimate()

    def _mean_cosine(self) -> Estimate:
        if not self._cosine.count:
            return Estimate(math.nan, math.nan, math.nan)
        return self._cosine.estimate().within(-1.0, 1.0)


def _rows(array: np.ndarray, rows: int) -> np.ndarray:
    return array.reshape(rows, -1)


def _num_non_finite(values: np.ndarray[Any, Any]) -> int:
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def _cosine(product: float, signal: float, power: float) -> float:
    if signal == 0.0 or power == 0.0:
        return 1.0 if signal == power else 0.0
    return min(1.0, max(-1.0, product / math.sqrt(signal * power)))


def _divergences(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    finite = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    p, q = _log_probabilities(x[finite]), _log_probabilities(y[finite])
    divergences: np.ndarray = (np.exp(p) * (p - q)).sum(1)
    return divergences


def _log_probabilities(scores: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax, or of the scores themselves if they are probabilities already."""
    values = scores.astype(np.float64)
    if np.all(values >= 0.0) and np.allclose(values.sum(1), 1.0, atol=1e-3):
        return np.log(np.maximum(values, 1e-12))
    values = values - values.max(axis=1, keepdims=True, initial=-np.inf)
    logs: np.ndarray = values - np.log(np.exp(values).sum(1, keepdims=True))
    return logs


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    # stable: among equal scores the lower class comes first, in both networks
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]


def _amplitude(log_ratio: Estimate) -> Estimate:
    """Relative L2 from ``ln(signal / noise)``: ``exp(-l / 2)``, which swaps the interval's ends."""
    value, high, low = (exp(-end / 2.0) for end in (log_ratio.value, log_ratio.low, log_ratio.high))
    return Estimate(value, low, high)
