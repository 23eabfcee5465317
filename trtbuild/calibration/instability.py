"""How much accuracy a tensor may lose if two halves of the data do not agree on its threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators.methods import assess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Calibration

__all__ = ["HARMLESS_DB", "InstabilityCost", "instability_costs"]

HARMLESS_DB = 0.5
"""A smaller loss of a tensor's SQNR is harmless: another choice of samples changes it by more."""


@dataclass(frozen=True)
class InstabilityCost:
    """How much a tensor may lose if its threshold moves as far as the halves' thresholds differ.

    Attributes:
        tensor: its name.
        apart: by how much the halves' thresholds differ, as a share.
        lost_db: loss of SQNR, in dB, with the worse of two thresholds: the chosen one moved up, and moved
            down, by `apart`; 0 if neither is worse.
        clipped_share: share of its values that the lower of these two thresholds clips.
    """

    tensor: str
    apart: float
    lost_db: float
    clipped_share: float


def instability_costs(
    calibration: Calibration, apart: Mapping[str, float | None]
) -> tuple[InstabilityCost, ...]:
    """Return how much each tensor whose halves do not agree may lose, the largest loss first.

    The halves' thresholds differ by ``apart``, so each may differ that much from the chosen one. The SQNR
    at both is computed from the tensor's histogram, as for every range.

    Args:
        calibration: the ranges, with histograms; tensors without a histogram are left out.
        apart: tensor -> difference of its halves' thresholds, as a share; None if a half is empty.
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
