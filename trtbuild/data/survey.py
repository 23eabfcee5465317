"""The range and variation of inputs, over the first samples of a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SURVEYED_SAMPLES", "InputSurvey", "survey"]

SURVEYED_SAMPLES = 8


@dataclass(frozen=True)
class InputSurvey:
    """Statistics of one input over some samples.

    Attributes:
        low, high: the minimum and maximum.
        deviation: standard deviation of the channel that varies most, within and between images.
        at_low, at_high: shares of the values equal to the minimum and the maximum.
    """

    low: float
    high: float
    deviation: float
    at_low: float
    at_high: float


def survey(feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, InputSurvey]:
    """Return statistics for each input that holds images or signals: floats of rank 3 or more.

    Arrays with non-finite values are left out: they cause an error later.

    Args:
        feeds: for each sample, input name -> values with a leading batch axis.
    """
    arrays: dict[str, list[np.ndarray]] = {}
    for sample in feeds:
        for name, array in sample.items():
            is_signal = array.ndim >= 3 and array.size and array.dtype.kind == "f"
            if is_signal and np.isfinite(array).all():
                arrays.setdefault(name, []).append(array)
    return {name: _survey(found) for name, found in arrays.items()}


def _survey(arrays: Sequence[np.ndarray]) -> InputSurvey:
    low = float(min(array.min() for array in arrays))
    high = float(max(array.max() for array in arrays))
    count = sum(array.size for array in arrays)
    channels = [_by_channel(array.astype(np.float64)) for array in arrays]
    same = len({values.shape[0] for values in channels}) == 1
    together = np.concatenate(channels, axis=1) if same else channels[0]
    return InputSurvey(
        low,
        high,
        float(together.std(axis=1).max()),
        sum(int((array == low).sum()) for array in arrays) / count,
        sum(int((array == high).sum()) for array in arrays) / count,
    )


def _by_channel(array: np.ndarray) -> np.ndarray:
    """(channels, values); the channel axis is 1, or the last one of four if that is shorter."""
    axis = array.ndim - 1 if array.ndim == 4 and array.shape[3] < array.shape[1] else 1
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
