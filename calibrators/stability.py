"""Were there enough images? What thresholds from two halves of the data tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators.errors import MergeError
from calibrators.methods import amax_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators.histogram import Histogram

__all__ = ["Stability", "stability"]


@dataclass(frozen=True)
class Stability:
    """One tensor's thresholds from all data and from each half."""

    tensor: str
    amax: float
    halves: tuple[float, float]

    @property
    def spread(self) -> float:
        """Difference of the halves' thresholds as a share of the threshold from all data."""
        first, second = self.halves
        return abs(first - second) / self.amax if self.amax else 0.0


def stability(
    amaxes: Mapping[str, float],
    first: Mapping[str, Histogram],
    second: Mapping[str, Histogram],
    method: str = "entropy",
    **options: float,
) -> dict[str, Stability]:
    """Choose thresholds from two halves of the data, and hold them against those of all data.

    The divergence that the entropy rule minimises is flat near its minimum: thresholds a few percent
    apart may be equally good, which `assess` of both on the same histogram shows.

    Args:
        amaxes: tensor name to the threshold that `method` found on all data.
        first: the same tensors' statistics over one half of the images; see `Collector.histograms`.
        second: those over the other half.
        method: as for `choose`.
        **options: as for `choose`.

    Raises:
        MergeError: the three are of different tensors.
    """
    odd = sorted((amaxes.keys() ^ first.keys()) | (first.keys() ^ second.keys()))
    if odd:
        raise MergeError(f"the halves are of different tensors: '{odd[0]}' is not in all of them.")
    found = {}
    for name, amax in amaxes.items():
        halves = [amax_of(half[name], method, **options) for half in (first, second)]
        found[name] = Stability(name, amax, (halves[0], halves[1]))
    return found
