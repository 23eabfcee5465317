"""What happened to every scale of a cache during migration."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.enums import StrEnum

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from calibrators.cache import CalibrationCache
    from trtbuild.plan import Decision

__all__ = ["Entry", "Fate", "Migration"]


class Fate(StrEnum):
    """What happened to one scale."""

    MATCHED = "matched"
    """The tensor of that name has the scale."""
    MAPPED = "mapped"
    """Another tensor has it, one that holds the same values."""
    UNNEEDED = "unneeded"
    """The tensor exists, but inside a fused kernel or between float layers, where no scale is read."""
    LOST_UNKNOWN = "lost: no such tensor"
    LOST_UNNAMED = "lost: TensorRT's own name, which depends on its parser"
    LOST_ZERO = "lost: the scale is zero"
    LOST_INFINITE = "lost: the scale is not finite"

    @property
    def is_lost(self) -> bool:
        """Whether nothing in the network can take the scale."""
        return self.value.startswith("lost")


@dataclass(frozen=True)
class Entry:
    """One scale: its source tensor, what happened to it, and the tensors that have it now."""

    name: str
    scale: np.float32
    fate: Fate
    tensors: tuple[str, ...] = ()
    through: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON types."""
        return {
            "name": self.name,
            "scale": float(self.scale) if self.fate is not Fate.LOST_INFINITE else None,
            "fate": str(self.fate),
            "tensors": list(self.tensors),
            "through": list(self.through),
        }


@dataclass(frozen=True)
class Migration:
    """A network in its new form.

    Attributes:
        model: the Q/DQ network, or the plain one.
        cache: the calibration cache for the plain network; None for a Q/DQ network.
        entries: what happened to every scale.
        decisions: for every node, whether it is INT8 in the Q/DQ network, and why; empty for a cache.
        without_scale: tensors of the plain network without a scale; their layers run in float.
    """

    model: ir.Model
    entries: tuple[Entry, ...]
    cache: CalibrationCache | None = None
    decisions: tuple[Decision, ...] = ()
    without_scale: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many scales had each fate."""
        counts = Counter(str(entry.fate) for entry in self.entries)
        return {str(fate): counts[str(fate)] for fate in Fate if counts[str(fate)]}

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "counts": self.counts(),
            "entries": [entry.to_json() for entry in self.entries],
            "layers": [
                {"node": d.node, "op_type": d.op_type, "int8": d.int8, "reason": d.reason}
                for d in self.decisions
            ],
            "without_scale": list(self.without_scale),
        }
