"""The entropy threshold: the range that loses least information, found fast and exactly.

`calibrators.entropy_reference` specifies the rule. Here the divergence of all candidates is computed
from prefix sums. Let S be the sum of all counts, C that of the kept bins, O = S - C, e the count of
the last kept bin plus O, and let level k hold s(k) values in n(k) occupied bins::

    S D(i) = sum over j < i-1 of h[j] ln h[j]  +  e ln e  -  sum over k of s(k) ln(s(k) / n(k))
             -  O ln(s / n of the last level)  +  S ln C  -  S ln S

The levels of candidate i are w or w + 1 bins wide, w = i // levels. So all candidates together have
fewer than 20,000 different intervals. Their logarithms are tabulated once per tensor; the map from
each candidate's levels to intervals is the same for every tensor.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from calibrators.entropy_reference import divergence

__all__ = ["divergences", "search"]

# The terms above are as large as S ln S while D may be 0, so D has an error of up to 1e-13. Candidates
# this close to the smallest are computed again with `entropy_reference.divergence`.
_SAFE_MARGIN = 1e-9


def search(
    counts: np.ndarray, levels: int = 128, outliers: int = 0, smallest: int | None = None
) -> int:
    """Return how many bins to keep: the same as `entropy_reference.search`, ties included.

    Args:
        counts: ``int64[n]`` of |x| in equal bins; the caller has decided what bin 0 holds.
        levels: magnitudes that the quantized tensor can tell apart, zero included.
        outliers: values that lie beyond the last bin.
        smallest: candidates begin here, at `levels` or above; by default at `levels`.

    Returns:
        From `smallest` to n; n when no candidate has a finite divergence.
    """
    first = smallest or levels
    values = divergences(counts, levels, outliers, first)
    least = values.min()
    if np.isinf(least):
        return len(counts)
    close = first + np.flatnonzero(values <= least + _SAFE_MARGIN)
    return (
        _largest_of_smallest(counts, close, levels, outliers) if len(close) > 1 else int(close[0])
    )


def _largest_of_smallest(counts: np.ndarray, close: np.ndarray, levels: int, outliers: int) -> int:
    best_kept, best = -1, np.inf
    for kept in reversed(close.tolist()):
        value = divergence(counts, kept, levels, outliers)
        if value < best:
            best_kept, best = kept, value
        if best == 0.0:  # no divergence is below 0, and the remaining candidates keep fewer bins
            break
    return best_kept


def divergences(
    counts: np.ndarray, levels: int = 128, outliers: int = 0, smallest: int | None = None
) -> np.ndarray:
    """Return the divergence of every candidate, ``float64[n - smallest + 1]``.

    Agrees with `entropy_reference.divergence` to about 1e-13, and has the same infinities. Arguments
    are those of `search`.
    """
    size = len(counts)
    first = smallest or levels
    counts_before = _prefix(counts.astype(np.float64))
    occupied_before = _prefix((counts > 0).astype(np.float64))
    kept = np.arange(first, size + 1)
    total = counts_before[-1] + outliers
    inside = counts_before[first:]
    outside = total - inside
    last = counts[first - 1 :] + outside

    information, mean_log = _interval_logs(counts_before, occupied_before, levels)
    cells = _level_cells(size, levels)[first - levels :]
    of_levels = np.einsum("ij->i", np.take(information, cells))
    of_last_level = mean_log[cells[:, -1]]
    of_bins = _prefix(_x_log_x(counts.astype(np.float64)))[kept - 1]

    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (
            of_bins
            + _x_log_x(last)
            - of_levels
            - outside * of_last_level
            + total * np.log(inside)
            - total * np.log(total)
        )
        values = scaled / total
    lost = (inside == 0) | ((counts[first - 1 :] == 0) & (outside > 0))
    return np.where(lost, np.inf, values)


def _prefix(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... n values."""
    return np.concatenate(([0.0], np.cumsum(values)))


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))


def _interval_logs(
    counts_before: np.ndarray, occupied_before: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """For every interval of `_rows`: s ln(s / n), and ln(s / n)."""
    rows = _rows(len(counts_before) - 1, levels)
    held, occupied = np.empty((2, rows[-1].stop))
    for width, row in enumerate(rows, start=1):
        num = row.stop - row.start
        np.subtract(counts_before[width:][:num], counts_before[:num], out=held[row])
        np.subtract(occupied_before[width:][:num], occupied_before[:num], out=occupied[row])
    # 0 for empty intervals; elsewhere s / n >= 1, as an occupied bin holds at least one value
    logs = held / np.maximum(occupied, 1.0, out=occupied)
    np.log(np.maximum(logs, 1.0, out=logs), out=logs)
    return held * logs, logs


@functools.lru_cache(maxsize=8)
def _rows(size: int, levels: int) -> tuple[slice, ...]:
    """Slices of the table for intervals of 1, 2, ... bins; each has the intervals starting at bin 0, 1, ...

    A level of w bins occurs only in candidates of less than (w + 1) * `levels` bins, which limits the starts.
    """
    widths = range(1, -(-size // levels) + 1)
    numbers = [min(size, (width + 1) * levels - 1) - width + 1 for width in widths]
    stops = itertools.accumulate(numbers)
    return tuple(slice(stop - number, stop) for number, stop in zip(numbers, stops))


@functools.lru_cache(maxsize=8)
def _level_cells(size: int, levels: int) -> np.ndarray:
    """Index into the table of `_rows` for each level of each candidate: ``intp[candidates, levels]``."""
    kept = np.arange(levels, size + 1)[:, None]
    # level k begins at ceil(k i / levels)
    borders = -(-np.arange(levels + 1)[None, :] * kept // levels)
    widths = np.diff(borders, axis=1)
    starts = np.array([row.start for row in _rows(size, levels)])
    cells: np.ndarray = (starts[widths - 1] + borders[:, :-1]).astype(np.intp)
    return cells
