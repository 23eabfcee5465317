"""What pruning did: widths, cost, and what was left and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtbuild.pytorch.cost import Cost

__all__ = ["LayerWidth", "PruneReport"]


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of one layer before and after; the reason when none went."""

    path: str
    before: int
    after: int
    kept: str = ""


@dataclass(frozen=True)
class PruneReport:
    """What pruning did.

    Attributes:
        asked: the ratio that was asked for.
        achieved: share of the channels gone, over the layers that could lose some.
        round_to: remaining widths are multiples of this.
        widths: every convolution and linear layer.
        before, after: cost of one sample.
        inexact: whether a norm over channels or attention was cut, so that even removing channels
            that are zero changes the output a little.
        notes: what else the user should know.
    """

    asked: float
    achieved: float
    round_to: int
    widths: tuple[LayerWidth, ...]
    before: Cost
    after: Cost
    inexact: bool = False
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "asked": self.asked,
            "achieved": self.achieved,
            "round_to": self.round_to,
            "macs": {"before": self.before.macs, "after": self.after.macs},
            "parameters": {"before": self.before.parameters, "after": self.after.parameters},
            "layers": [
                {"path": w.path, "before": w.before, "after": w.after, "kept": w.kept}
                for w in self.widths
            ],
            "inexact": self.inexact,
            "notes": list(self.notes),
        }
