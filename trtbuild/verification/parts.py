"""How far each part of an output is from its float reference (`trtbuild.model.parts` finds the parts).

With x the float part, y the candidate's, and m the mean of x for each channel over images and positions:

    SQNR of a part   10 log10( sum (x - m)^2 / sum (x - y)^2 )         dB

The signal is what varies. Scores that are near zero nearly everywhere, logits about -6 and boxes about the
middle of the picture carry their meaning in how they differ between places and images. So an engine that
always answers the mean of each channel has 0 dB, whatever that mean is. The sum is the unbiased one
(n / (n - 1) times the sum of squares for n values a channel). Where a channel block has one value only, or
does not vary, the signal is its power about zero. An image counts where the part is finite in both; if there
are images and none counts, the SQNR is ``-inf``. The same holds for `WHOLE`, the only part of an output
without other parts: its SQNR is that of `trtbuild.verification.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.verification.intervals import Estimate, PairMoments, decibel_estimate

if TYPE_CHECKING:
    from trtbuild.model.parts import Part

__all__ = ["PartComparison", "PartMetrics", "PartPower"]

# A signal below this share of the power is constant up to FP32 rounding.
_CONSTANT = 1e-12
# A variation of a thousandth, too small for 8 bits to show.
_HARDLY = 1e-6


@dataclass(frozen=True)
class PartComparison:
    """One part of an output against float.

    Attributes:
        name: the part in words.
        axis, start, stop: the block of the output.
        tensor: its name in the graph.
        rms: root mean square of the signal (see the module), in the output's unit.
        noise_rms: root mean square of the difference to float.
        sqnr_db: see the module.
        relative_l2: ``10^(-SQNR / 20)``.
        cosine: between x - m and y - m; between x and y where m is not known or x does not vary.
    """

    name: str
    axis: int
    start: int
    stop: int
    tensor: str
    rms: float
    noise_rms: float
    sqnr_db: Estimate
    relative_l2: Estimate | None = None
    cosine: Estimate | None = None


@dataclass(frozen=True)
class PartPower:
    """Sums of squares of a part: `signal` as the module defines it, `noise` of the difference to float."""

    part: Part
    signal: float
    noise: float


class PartMetrics:
    """Accumulates signal and noise of one part, batch by batch; memory is a few values per channel."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._centre: np.ndarray | None = None
        self._sums = self._squares = np.zeros(1)
        self._count = self._num_left_out = 0
        self._power = self._noise = 0.0
        # per channel, about the centre: sums of y, y^2 and x y
        self._others = np.zeros((3, 1))
        self._pairs = PairMoments()

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Take one batch of the whole output; its first axis is the images."""
        x, y = (self._channels(array) for array in (reference, other))
        finite = np.isfinite(x).all((1, 2)) & np.isfinite(y).all((1, 2))
        if not finite.all():
            self._num_left_out += int(np.count_nonzero(~finite))
            x, y = x[finite], y[finite]
        if not x.size:
            return
        if self._centre is None:
            # near the mean, so that sums of squares do not cancel; the results do not depend on it
            self._centre = x.mean((0, 2)) if self._part.axis is not None else np.zeros(1)
            self._sums = self._squares = np.zeros_like(self._centre)
            self._others = np.zeros((3, len(self._centre)))
        noise, shifted = ((x - y) ** 2).sum((1, 2)), x - self._centre[:, None]
        other = y - self._centre[:, None]
        self._others += [one.sum((0, 2)) for one in (other, other**2, shifted * other)]
        squares = shifted**2
        self._sums = self._sums + shifted.sum((0, 2))
        self._squares = self._squares + squares.sum((0, 2))
        self._count += x.shape[0] * x.shape[2]
        self._power += float((x**2).sum())
        self._noise += float(noise.sum())
        for signal_of_image, noise_of_image in zip(squares.sum((1, 2)), noise):
            self._pairs.add(float(signal_of_image), float(noise_of_image))

    def _channels(self, array: np.ndarray) -> np.ndarray:
        """The part as ``[images, channels, positions]``."""
        if self._part.axis is None:
            return array.astype(np.float64).reshape(len(array), 1, prod(array.shape[1:]))
        found = np.moveaxis(self._part.of(array), self._part.axis, 1).astype(np.float64)
        return found.reshape(*found.shape[:2], prod(found.shape[2:]))  # -1 is undefined for size 0

    def power(self) -> PartPower:
        """Return the sums so far."""
        return PartPower(self._part, self._signal(), self._noise)

    def _signal(self) -> float:
        spread = self._spread()
        return self._power if spread is None or spread <= _CONSTANT * self._power else spread

    @property
    def hardly_varies(self) -> bool:
        """Whether values differ from their channel's mean by less than a thousandth of themselves."""
        spread = self._spread()
        return spread is not None and spread <= _HARDLY * self._power

    def _spread(self) -> float | None:
        """The signal about each channel's mean; None for a part without channels or with one value each."""
        count = self._count
        if self._part.axis is None or count < 2:
            return None
        return float((self._squares - self._sums**2 / count).sum()) * count / (count - 1)

    def result(self) -> PartComparison:
        """Return the figures so far."""
        if self._num_left_out and not self._count:
            return self._nothing_finite()
        part, power = self._part, self.power()
        count = max(self._count * (part.stop - part.start), 1)
        return PartComparison(
            name=str(part),
            axis=part.axis or 0,
            start=part.start,
            stop=part.stop,
            tensor=part.tensor,
            rms=float(np.sqrt(power.signal / count)),
            noise_rms=float(np.sqrt(power.noise / count)),
            sqnr_db=self._sqnr(power),
            relative_l2=self._relative_l2(power),
            cosine=self._cosine(),
        )

    def _nothing_finite(self) -> PartComparison:
        part, nothing = self._part, Estimate(-np.inf, -np.inf, -np.inf)
        return PartComparison(
            str(part), part.axis or 0, part.start, part.stop, part.tensor, np.nan, np.nan, nothing
        )

    def _relative_l2(self, power: PartPower) -> Estimate | None:
        if not power.signal > 0:
            return None
        value = float(np.sqrt(power.noise / power.signal))
        log_ratio = self._pairs.log_ratio()
        if not np.isfinite(log_ratio.value):
            return Estimate(value, value, value)
        spreads = (log_ratio.value - end for end in (log_ratio.high, log_ratio.low))
        with np.errstate(over="ignore"):
            low, high = (value * float(np.exp(spread / 2)) for spread in spreads)
        return Estimate(value, low, high)

    def _cosine(self) -> Estimate | None:
        """Cosine over all values, about the means of x unless x does not vary; has no interval."""
        if self._centre is None or not self._count:
            return None
        varies = self._part.axis is not None and self._signal() != self._power
        # x - m and y - m, from the sums about the centre
        shift = self._sums / self._count if varies else -self._centre
        sums, squares, products = self._others
        along_x = self._squares - 2 * shift * self._sums + self._count * shift**2
        along_y = squares - 2 * shift * sums + self._count * shift**2
        across = products - shift * (sums + self._sums) + self._count * shift**2
        size = float(np.sqrt(max(along_x.sum(), 0.0) * max(along_y.sum(), 0.0)))
        value = float(across.sum()) / size if size > 0 else float(along_x.sum() == along_y.sum())
        return Estimate(min(1.0, max(-1.0, value)), -np.inf, np.inf)

    def _sqnr(self, power: PartPower) -> Estimate:
        spread = self._pairs.log_ratio()
        return decibel_estimate(power.signal, power.noise, spread)
