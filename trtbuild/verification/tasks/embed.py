"""Embeddings: whether the engine's nearest neighbours and similarities agree with the float network's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.verification.intervals import Estimate, Moments
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    SampleScore,
    TaskScore,
    Worst,
    only,
    share_of,
)
from trtbuild.verification.views import Answer, View

if TYPE_CHECKING:
    from trtbuild.verification.batch import LabelledBatch

__all__ = ["Embed", "spearman"]

# Pairs are computed for at most this many samples (32 MB for each matrix).
_MOST_SAMPLES = 2_000

_MASK = "attention_mask"

_NUM_WORST = 10

# Cosines of FP32 vectors that differ by less than this are equal up to rounding.
_SAME_COSINE = 1e-6


class Embed(Judge):
    """Compares embeddings ``[samples, dims]``, scaled to unit length.

    ``[samples, tokens, dims]`` are averaged over tokens, weighted by the input ``attention_mask`` if there is
    one. Neighbours and pairs are taken from the first 2000 samples.
    """

    def __init__(self) -> None:
        self._output = ""
        self._rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._names: list[str] = []
        self._cosine = Moments()
        self._worst = Worst(perfect=1.0)

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        shape = "[samples, dims] or [samples, tokens, dims]"
        self._output = self._output or only(reference, (2, 3), "embed", shape)
        mask = batch.feeds.get(_MASK)
        x, y = (_unit(one[self._output], mask) for one in (reference, candidate))
        room = _MOST_SAMPLES - len(self._names)
        for number, (name, cosine) in enumerate(zip(batch.names, (x * y).sum(1))):
            self._cosine.add(float(cosine))
            if number < room:
                self._worst.add(name, float(cosine))
        for rows, array in zip(self._rows, (x, y)):
            rows.extend(array[:room])
        self._names.extend(batch.names[:room])

    def result(self) -> TaskScore:
        """Return the share of same nearest neighbours (Wilson), Spearman of all pairs and the mean cosine."""
        count = len(self._names)
        cosine = Figure("cosine", "", self._cosine.estimate().within(-1.0, 1.0))
        settings = f"output '{self._output}', neighbours among {count}"
        if count < 3:
            return TaskScore("embed", settings, count, None, (cosine,))
        x, y = (np.stack(rows) for rows in self._rows)
        ours, theirs = x @ x.T, y @ y.T
        pairs = np.triu_indices(count, 1)
        if np.ptp(ours[pairs]) <= _SAME_COSINE:
            return TaskScore("embed", f"{settings}, all alike", count, None, (cosine,))
        order = spearman(ours[pairs], theirs[pairs])
        for similar in (ours, theirs):
            np.fill_diagonal(similar, -np.inf)
        # another neighbour is as good if float cannot tell it apart: equal samples, equal vectors
        chosen, best = ours[np.arange(count), theirs.argmax(1)], ours.max(1)
        same = chosen >= best - _SAME_COSINE
        main = share_of("same nearest neighbour", int(same.sum()), count)
        others = (Figure("Spearman of similarities", "", _fisher(order, count)), cosine)
        worst = self._with_neighbours(ours.argmax(1), theirs.argmax(1), same, (x * y).sum(1))
        return TaskScore("embed", settings, count, main, others, worst)

    def _with_neighbours(
        self, ours: np.ndarray, theirs: np.ndarray, same: np.ndarray, cosines: np.ndarray
    ) -> tuple[SampleScore, ...]:
        """The worst samples: those with another neighbour first, then by their own cosine.

        Args:
            ours: float's nearest neighbour of each sample, int ``[samples]``.
            theirs: the other network's nearest neighbour.
            same: whether float finds theirs as near as its own, bool ``[samples]``.
            cosines: between both networks' vectors, ``[samples]``.
        """
        found = []
        for place in np.lexsort((cosines, same))[:_NUM_WORST]:
            if same[place] and cosines[place] >= 1.0:
                break
            texts = (f"nearest is {self._names[near[place]]}" for near in (ours, theirs))
            view = View(None, *map(Answer, texts))
            found.append(SampleScore(self._names[place], float(cosines[place]), view))
        return tuple(found)


def _unit(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    rows = array.astype(np.float64)
    if rows.ndim == 3:
        given = (
            mask if mask is not None and mask.shape == rows.shape[:2] else np.ones(rows.shape[:2])
        )
        weights = given.astype(np.float64)[..., None]
        rows = (rows * weights).sum(1) / np.maximum(weights.sum(1), 1.0)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of the ranks of two float arrays ``[n]``.

    Equal values get the mean of their ranks (Spearman 1904). If neither varies: 1 for equal arrays, else 0.
    """
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float(np.array_equal(first, second))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: np.ndarray = (last - (counts - 1) / 2)[place.reshape(-1)]
    return means


def _fisher(value: float, count: int) -> Estimate:
    """Fisher's interval; pairs share samples, so only `count` of them are taken as independent."""
    if count < 4 or abs(value) >= 1:
        return Estimate(value, value, value)
    centre, half = np.arctanh(value), 1.96 * np.sqrt(1.06 / (count - 3))
    return Estimate(value, float(np.tanh(centre - half)), float(np.tanh(centre + half)))
