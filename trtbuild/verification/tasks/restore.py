"""Images as outputs (super-resolution, denoising): PSNR of the engine's image against float's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.verification.intervals import Moments
from trtbuild.verification.tasks.base import Figure, Outputs, TaskScore, Worst, only

if TYPE_CHECKING:
    from trtbuild.verification.batch import LabelledBatch

__all__ = ["Restore"]

# Of equal images; the range of 16 bits squared is 96 dB.
_BEST_DB = 100.0


class Restore:
    """Averages ``10 log10(peak^2 / mean square difference)`` over images.

    The peak is 255 where the float network's first images reach beyond 2, else 1, or 2 for values from -1 on.
    """

    def __init__(self) -> None:
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
        self._peak = self._peak or _peak(x)
        for name, error in zip(batch.names, x - y):
            mean = float(np.mean(error**2))
            found = _BEST_DB if mean == 0 else 0.0  # the latter where a value is not finite
            if 0 < mean < np.inf:
                found = min(_BEST_DB, 10 * float(np.log10(self._peak**2 / mean)))
            self._psnr.add(found)
            self._worst.add(name, found)

    def result(self) -> TaskScore:
        """Return the mean PSNR (Student's interval over images)."""
        main = Figure("PSNR", "dB", self._psnr.estimate())
        settings = f"output '{self._output}', peak {self._peak:g}"
        return TaskScore("restore", settings, self._psnr.count, main, (), self._worst.result())


def _peak(values: np.ndarray) -> float:
    low, high = float(np.min(values, initial=0.0)), float(np.max(values, initial=0.0))
    if high > 2.0:
        return 255.0
    return 2.0 if low < -0.5 else 1.0
