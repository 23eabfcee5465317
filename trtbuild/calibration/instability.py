"""What it means for accuracy that two halves of the data do not agree on a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators.methods import assess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Calibration

__all__ = ["HARMLESS_DB", "InstabilityCost", "instability_costs"]

HARMLESS_DB = 0.5
"""So little of a tensor's signal over noise is less than rounding by another seed of the data moves."""


@dataclass(frozen=True)
class InstabilityCost:
    """What a tensor may lose by its threshold being that of one half of the data.

    Attributes:
        tensor: its name.
        apart: by how much the halves' thresholds differ, as a share.
        lost_db: signal over quantization noise that it loses with the worse of the thresholds that lie so far
            from the one that was chosen; 0 where both are as good.
        clipped_share: of its values, that the smaller of them clips.
    """

    tensor: str
    apart: float
    lost_db: float
    clipped_share: float


def instability_costs(
    calibration: Calibration, apart: Mapping[str, float | None]
) -> tuple[InstabilityCost, ...]:
    """Return what each tensor whose halves do not agree may lose, the most first.

    The halves lie about ``apart`` of the threshold from each other, so either may lie as far from the one
    that was chosen. What both cost is expected from the tensor's histogram, as for every range.

    Args:
        calibration: with its histograms; without them nothing can be told.
        apart: tensor -> difference of its halves' thresholds, as a share; None where a half is empty.
    """
    found = []
    for tensor, share in apart.items():
        histogram = (calibration.histograms or {}).get(tensor)
        given = calibration.ranges.get(tensor)
        if histogram is None or given is None or not share or not given.amax:
            continue
        narrow, own, wide = (
            assess(histogram, given.amax * factor, given.method)
            for factor in (1 / (1 + share), 1.0, 1 + share)
        )
        lost = max(own.sqnr_db - narrow.sqnr_db, own.sqnr_db - wide.sqnr_db, 0.0)
        found.append(InstabilityCost(tensor, share, lost, narrow.clipped_share))
    return tuple(sorted(found, key=lambda one: (-one.lost_db, one.tensor)))
