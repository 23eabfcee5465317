"""What ``trtbuild calibrate`` shows: every tensor's range, or every method's choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from calibrators import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Calibration

__all__ = ["method_table", "range_table"]


def range_table(calibration: Calibration, spread: Mapping[str, float]) -> Table:
    """One row a tensor: its threshold, what that costs, and how far two halves of the data agree."""
    table = Table("tensor", "amax", "largest seen", "clipped", "SQNR dB", "spread", "note")
    for name, given in calibration.ranges.items():
        table.add_row(
            name,
            f"{given.amax:.5g}",
            f"{given.observed_amax:.5g}",
            f"{given.clipped_share:.3%}",
            f"{given.sqnr_db:.1f}",
            f"{spread[name]:.1%}" if name in spread else "",
            given.note,
        )
    samples = calibration.provenance.get("num_samples", "?")
    table.caption = (
        f"{calibration.method} over {samples} samples; spread: thresholds of two halves apart"
    )
    return table


def method_table(calibration: Calibration) -> Table:
    """One row a tensor, one column a method: threshold, clipped share, SQNR of the tensor."""
    table = Table("tensor", *METHODS)
    choices = [calibration.chosen_with(method) for method in METHODS]
    for name in calibration.ranges:
        found = [choice.ranges[name] for choice in choices]
        table.add_row(
            name, *(f"{r.amax:.4g} ({r.clipped_share:.2%}, {r.sqnr_db:.1f} dB)" for r in found)
        )
    table.caption = "threshold (share of the values clipped, SQNR of the tensor)"
    return table
