"""A judge: a metric of your own for the engine's outputs; higher is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def sure_class(
    float_outputs: Mapping[str, np.ndarray],
    engine_outputs: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    names: Sequence[str],
) -> np.ndarray:
    """Return 100 for each sample with float's class and at least half of its margin, 0 for all others.

    Args:
        float_outputs: output name -> array of one batch.
        engine_outputs: the same for the engine.
        labels: the class of each sample, or None.
        names: of the samples.
    """
    del labels, names
    name = next(iter(float_outputs))
    ours, theirs = float_outputs[name], engine_outputs[name]
    same = ours.argmax(1) == theirs.argmax(1)
    sure = _margin(theirs) >= 0.5 * _margin(ours)
    return 100.0 * (same & sure)


sure_class.title = "same class, and sure"  # type: ignore[attr-defined]  # name of the figure in reports


def _margin(scores: np.ndarray) -> np.ndarray:
    best = np.sort(scores, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])
