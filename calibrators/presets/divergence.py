"""What several of the presets share: levels of equal width, smoothing, relative entropy."""

from __future__ import annotations

import numpy as np

__all__ = ["level_starts", "relative_entropy", "smoothed", "spread"]


def level_starts(size: int, levels: int) -> np.ndarray:
    """First bin of each of `levels` levels of ``size // levels`` bins; the last takes the rest."""
    return np.arange(levels) * (size // levels)


def spread(counts: np.ndarray, filled: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Each level's count divided by its number of filled bins, in every bin of the level."""
    held = np.add.reduceat(counts, starts)
    num_filled = np.add.reduceat(filled.astype(np.int64), starts)
    means = np.where(num_filled > 0, held / np.maximum(num_filled, 1), 0.0)
    return np.repeat(means, np.diff(starts, append=len(counts)))


def smoothed(counts: np.ndarray, amount: float = 1e-4) -> np.ndarray | None:
    """Fill every empty bin with `amount` and take as much off the filled ones, in float32.

    Beside large counts what is taken off is lost to rounding, as it is in the tools that do this.

    Returns:
        None when there is nothing to take it off.
    """
    empty = counts == 0
    num_empty = np.count_nonzero(empty)
    num_filled = len(counts) - num_empty
    if num_filled == 0 or amount * num_empty >= num_filled:
        return None
    taken = np.float32(amount * num_empty / num_filled)
    less: np.ndarray = np.where(empty, np.float32(amount), counts.astype(np.float32) - taken)
    return less


def relative_entropy(p: np.ndarray | None, q: np.ndarray | None) -> float:
    """The divergence of p from q in nats, each divided by its own sum.

    Infinite where p has something and q nothing, and when either is None.
    """
    if p is None or q is None:
        return float("inf")
    p, q = p / p.sum(dtype=np.float64), q / q.sum(dtype=np.float64)
    held = p > 0
    if np.any(q[held] <= 0):
        return float("inf")
    return float(np.sum(p[held] * np.log(p[held] / q[held])))
