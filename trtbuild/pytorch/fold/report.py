"""What became of every norm: folded or left, into which layer, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FoldReport", "NormFate"]


@dataclass(frozen=True)
class NormFate:
    """What became of one norm.

    Attributes:
        norm: path of the norm module, or name of the graph node of a functional norm.
        kind: its class, or ``functional``.
        outcome: ``folded`` in the module, ``folded in graph`` on the way to ONNX, or ``left``.
        into: paths of the layers that took it up.
        reason: why it was left; for a folded one what is worth knowing, or empty.
    """

    norm: str
    kind: str
    outcome: Literal["folded", "folded in graph", "left"]
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

    def with_note(self, note: str) -> FoldReport:
        """This report with one more note."""
        return replace(self, notes=(*self.notes, note))

    def with_graph_fates(self, fates: Sequence[NormFate]) -> FoldReport:
        """This report after a fold on the graph: what was left here may be gone there.

        A norm counts as folded only when every call of it is. Functional norms are named by nodes,
        which another graph may number differently, so they are taken over whole.
        """
        modules = [fate for fate in self.fates if fate.kind != "functional"]
        merged = []
        for fate in modules:
            calls = [later for later in fates if later.norm == fate.norm]
            if fate.outcome == "left" and calls and all(c.outcome != "left" for c in calls):
                into = tuple(dict.fromkeys(layer for call in calls for layer in call.into))
                merged.append(replace(fate, outcome=calls[0].outcome, into=into))
            else:
                merged.append(fate)
        known = {fate.norm for fate in modules}
        functional = [replace(f, kind="functional") for f in fates if f.norm not in known]
        return replace(self, fates=(*merged, *functional))

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
