"""What ``trtbuild calibrate`` shows: every tensor's range, or every method's choice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Column, Table

from calibrators import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Calibration

__all__ = ["agreement_lines", "all_choices", "finite", "method_table", "range_table"]

# Columns of a name that a narrow terminal still shows in one line; longer names are folded.
_WIDEST = 10


def range_table(calibration: Calibration, spread: Mapping[str, float]) -> Table:
    """One row a tensor: its threshold, what that costs, and how far two halves of the data agree."""
    titles = ("amax", "largest seen", "clipped", "SQNR dB", "spread", "note")
    table = Table(Column("tensor", overflow="fold"), *titles)
    for name, given in calibration.ranges.items():
        table.add_row(
            escape(name),
            f"{given.amax:.5g}",
            f"{given.observed_amax:.5g}",
            f"{given.clipped_share:.3%}",
            f"{given.sqnr_db:.1f}",
            f"{spread[name]:.1%}" if name in spread else "",
            given.note,
        )
    samples = calibration.provenance.get("num_samples", "?")
    halves = "; spread: thresholds of two halves apart" if spread else ""
    table.caption = f"{calibration.method} over {samples} samples{halves}"
    return table


def method_table(calibration: Calibration) -> Table:
    """One row a tensor, one column a method: threshold, clipped share, SQNR of the tensor."""
    choices = _choices(calibration)
    methods = (Column(name, min_width=min(len(name), _WIDEST)) for name in choices)
    table = Table(Column("tensor", overflow="fold"), *methods, show_lines=True)
    for name in calibration.ranges:
        found = [choice.ranges[name] for choice in choices.values()]
        table.add_row(
            escape(name),
            *(f"{r.amax:.4g}\n{r.clipped_share:.2%}\n{r.sqnr_db:.1f} dB" for r in found),
        )
    table.caption = "threshold, share of the values clipped, SQNR of the tensor"
    return table


def all_choices(calibration: Calibration) -> dict[str, dict[str, dict[str, float | None]]]:
    """What `method_table` shows, as JSON types: method -> tensor -> figures; infinite ones are None."""
    return {
        method: {
            name: {
                "amax": finite(given.amax),
                "clipped_share": given.clipped_share,
                "sqnr_db": finite(given.sqnr_db),
            }
            for name, given in choice.ranges.items()
        }
        for method, choice in _choices(calibration).items()
    }


def _choices(calibration: Calibration) -> dict[str, Calibration]:
    """The calibration as it was made, and with every other method of ours."""
    others = {m: calibration.chosen_with(m) for m in METHODS if m != calibration.method}
    return {calibration.method: calibration, **others}


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def agreement_lines(agreement: Mapping[str, Any]) -> str:
    """How a calibration that might stop early has ended, and which tensors do not agree."""
    share, apart = agreement["share"], agreement["apart"]
    used = f"{agreement['num_used']} of {agreement['num_given']} samples were used"
    if not apart:
        return f"{used}: the halves' thresholds agree to {_percent(share)} in every tensor"
    lines = [
        f"{used}, and {len(apart)} of {agreement['num_tensors']} tensors do not agree to {_percent(share)}:"
    ]
    for name, spread in apart.items():
        how = "half of the data is empty" if spread is None else f"{spread:.2%} apart"
        lines.append(f"  {escape(name)}: {how}")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
