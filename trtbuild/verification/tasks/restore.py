"""Images as outputs (super-resolution, denoising): PSNR of the engine's image against float's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.verification.intervals import Moments
from trtbuild.verification.tasks.base import (
    Figure,
    Judge,
    Outputs,
    Seen,
    TaskScore,
    Worst,
    only,
)
from trtbuild.verification.views import Answer, as_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.verification.batch import LabelledBatch

__all__ = ["Restore"]

# PSNR of equal images; 16 bits reach 96 dB.
_BEST_DB = 100.0

# Peak of values from -1 to 1.
_SIGNED_PEAK = 2.0


class Restore(Judge):
    """Averages ``10 log10(peak^2 / mean square difference)`` over images.

    The peak is 255 if the float network's first images exceed 2, else 2 if they go below -0.5, else 1.

    Args:
        is_guess: whether the user has not said that the output is an image; `add` then raises if the output
            does not resemble the input in the first batch.
    """

    def __init__(self, *, is_guess: bool = False) -> None:
        self._is_guess = is_guess
        self._output = ""
        self._peak = 0.0
        self._psnr = Moments()
        self._worst = Worst(perfect=_BEST_DB)

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take one batch."""
        self._output = self._output or only(
            reference, (3, 4), "restore", "[images, channels, height, width]"
        )
        x, y = (one[self._output].astype(np.float64) for one in (reference, candidate))
        if self._is_guess and not self._peak and not _shows(x, batch.feeds):
            raise OptionError(
                "the output is not an image like the input, but depths, scores or others."
            )
        self._peak = self._peak or _peak(x)
        for name, error in zip(batch.names, x - y):
            mean = float(np.mean(error**2))
            found = _BEST_DB if mean == 0 else 0.0  # 0 if a value is not finite
            if 0 < mean < np.inf:
                found = min(_BEST_DB, 10 * float(np.log10(self._peak**2 / mean)))
            self._psnr.add(found)
            self._worst.add(name, found)

    def result(self) -> TaskScore:
        """Return the mean PSNR (Student's interval over images)."""
        main = Figure("PSNR", "dB", self._psnr.estimate())
        settings = f"output '{self._output}', peak {self._peak:g}"
        return TaskScore("restore", settings, self._psnr.count, main, (), self._worst.result())

    def answers(self, seen: Seen) -> tuple[Answer, Answer]:
        """Return both networks' pictures."""
        given = (one[self._output][seen.row] for one in seen.outputs)
        ours, theirs = (one if one.ndim == 3 else one[None] for one in given)
        between = (-1.0, 1.0) if self._peak == _SIGNED_PEAK else (0.0, self._peak)
        first, second = (as_pixels(one, between=between) for one in (ours, theirs))
        return Answer("", picture=first), Answer("", picture=second)


def _shows(images: np.ndarray, feeds: Mapping[str, np.ndarray]) -> bool:
    """Whether images ``[N, C, H, W]`` correlate with the input, after averaging them down to its size."""
    given = next((one for one in feeds.values() if one.ndim == 4), None)
    if given is None or images.ndim != 4 or given.shape[:2] != images.shape[:2]:
        return False
    high, wide = (a // b for a, b in zip(images.shape[2:], given.shape[2:]))
    if images.shape[2:] != (high * given.shape[2], wide * given.shape[3]):
        return False
    small = images.reshape(*given.shape[:3], high, given.shape[3], wide).mean((3, 5))
    a, b = (one - one.mean((2, 3), keepdims=True) for one in (given.astype(np.float64), small))
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return bool(size > 0 and (a * b).sum() / size > _LEAST_CORRELATION)


_LEAST_CORRELATION = 0.7


def _peak(values: np.ndarray) -> float:
    low, high = float(np.min(values, initial=0.0)), float(np.max(values, initial=0.0))
    if high > 2.0:
        return 255.0
    return _SIGNED_PEAK if low < -0.5 else 1.0
