"""One number for how near a candidate is to the float network, to rank candidates by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from trtbuild.verification.compare import Comparison

__all__ = ["fidelity"]


def fidelity(comparison: Comparison) -> float:
    """SQNR of the worst float output, dB; it moves with every change, so it can rank candidates."""
    found = [output.sqnr_db.value for output in comparison.outputs if output.sqnr_db is not None]
    if not found:
        raise OptionError("no output holds floating-point values; there is nothing to rank by.")
    if any(output.num_non_finite for output in comparison.outputs):
        return float("-inf")
    return min(found)
