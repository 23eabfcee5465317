"""What became of every norm: folded or left, into which layer, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FoldReport", "NormFate"]


@dataclass(frozen=True)
class NormFate:
    """What became of one norm.

    Attributes:
        norm: path of the norm module, or name of the graph node of a functional norm.
        kind: its class, or ``functional``.
        outcome: ``folded`` in the module, or ``left``.
        into: paths of the layers that took it up.
        reason: why it was left, and whether the graph passes can fold it after the export; empty for a
            folded one.
    """

    norm: str
    kind: str
    outcome: Literal["folded", "left"]
    into: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class FoldReport:
    """The fate of every norm, and how exact the whole is.

    Attributes:
        fates: one entry a norm.
        relative_error: largest difference to the unfolded module in float64, relative to the largest
            output; None when nothing was folded.
        evaluated: computed weights (masks, weight norm, spectral norm) that were made plain first.
        notes: what else the user should know, for example that the module could not be traced.
    """

    fates: tuple[NormFate, ...]
    relative_error: float | None = None
    evaluated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[NormFate, ...]:
        """The norms that are gone."""
        return tuple(fate for fate in self.fates if fate.outcome != "left")

    @property
    def left(self) -> tuple[NormFate, ...]:
        """The norms that are still there."""
        return tuple(fate for fate in self.fates if fate.outcome == "left")

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "folded": [
                {"norm": f.norm, "kind": f.kind, "where": f.outcome, "into": list(f.into)}
                for f in self.folded
            ],
            "left": [{"norm": f.norm, "kind": f.kind, "reason": f.reason} for f in self.left],
            "relative_error": self.relative_error,
            "evaluated_weights": list(self.evaluated),
            "notes": list(self.notes),
        }
