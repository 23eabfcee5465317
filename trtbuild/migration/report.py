"""What happened to every scale of a cache during migration."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """One scale.

    Attributes:
        tensor: its tensor in the source.
        scale: the scale.
        fate: what happened to it.
        tensors: the tensors that have it now.
        through: the operators between them and `tensor`, which keep values.
    """

    tensor: str
    scale: np.float32
    fate: Fate
    tensors: tuple[str, ...] = ()
    through: tuple[str, ...] = ()


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
