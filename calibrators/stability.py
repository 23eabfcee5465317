"""Were there enough images? What thresholds from two halves of the data tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators.errors import MergeError
from calibrators.methods import assess, choose

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
    sqnr_loss_db: float
    """How much worse, on all data, the worse half's threshold is than the one from all data; may be
    below 0, as no method but ``mse`` seeks the best SQNR."""

    @property
    def spread(self) -> float:
        """Difference of the halves' thresholds as a share of the threshold from all data."""
        first, second = self.halves
        return abs(first - second) / self.amax if self.amax else 0.0


def stability(
    first: Mapping[str, Histogram],
    second: Mapping[str, Histogram],
    method: str = "entropy",
    **options: float,
) -> dict[str, Stability]:
    """Choose thresholds from two halves of the data, and from both together.

    The divergence that the entropy rule minimises is flat near its minimum: thresholds a few
    percent apart may be equally good, which `Stability.sqnr_loss_db` shows.

    Args:
        first: tensor name to statistic, over one half of the images; see `Collector.histograms`.
        second: the same tensors over the other half.
        method: as for `choose`.
        **options: as for `choose`.

    Raises:
        MergeError: the halves are of different tensors.
    """
    odd = sorted(first.keys() ^ second.keys())
    if odd:
        raise MergeError(f"the halves are of different tensors: '{odd[0]}' is in one only.")
    return {name: _of_tensor(name, first[name], second[name], method, options) for name in first}


def _of_tensor(
    name: str, first: Histogram, second: Histogram, method: str, options: Mapping[str, float]
) -> Stability:
    together = first.merge(second)
    whole = choose(together, method, **options)
    halves = [choose(half, method, **options).amax for half in (first, second)]
    # a half in which the tensor is always zero offers no threshold to judge
    usable = [assess(together, amax, method).sqnr_db for amax in halves if amax > 0]
    loss = whole.sqnr_db - min(usable) if whole.amax and usable else 0.0
    return Stability(name, whole.amax, (halves[0], halves[1]), loss)
