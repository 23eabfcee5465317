"""Finds an engine's worst samples without a task: those whose outputs are furthest from float."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.verification.intervals import decibels
from trtbuild.verification.tasks.base import Judge, Worst

if TYPE_CHECKING:
    from trtbuild.verification.batch import LabelledBatch
    from trtbuild.verification.tasks.base import Outputs

__all__ = ["Distance"]


class Distance(Judge):
    """Ranks samples by the SQNR (dB) of their worst float output; it has no task figure."""

    def __init__(self, count: int = 10) -> None:
        self._worst = Worst(count, perfect=math.inf)

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take both networks' outputs for one batch; only float outputs with a row for each sample count."""
        for row, name in enumerate(batch.names):
            found = [
                _sqnr(reference[output][row], candidate[output][row])
                for output in reference
                if _has_rows(reference[output], candidate[output], len(batch.names))
            ]
            self._worst.add(name, min(found, default=math.inf))

    def result(self) -> None:
        """Return nothing: a distance is not a task."""


def _has_rows(x: np.ndarray, y: np.ndarray, count: int) -> bool:
    return x.dtype.kind == "f" and x.shape == y.shape and x.ndim > 0 and len(x) == count


def _sqnr(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return -math.inf
    return decibels(float((x * x).sum()), float(((x - y) ** 2).sum()))
