"""What a module is before channels of it are removed, and what is said of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.pytorch.copies import copy_module, make_weights_plain
from trtbuild.pytorch.prune.history import PruneHistory, history_of, remember
from trtbuild.pytorch.prune.ranking import layer_widths
from trtbuild.pytorch.prune.rewrites import rewrite_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from trtbuild.pytorch.cost import Cost
    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.prune.cutting import Cut
    from trtbuild.pytorch.prune.rewrites import BlockRewrite

__all__ = ["LayerWidth", "PruneReport", "PruneResult", "prepared", "remembered", "width_changes"]


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
        asked: the ratio that was asked for, or that a budget asks for.
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
        """Return the report as JSON types."""
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


@dataclass(frozen=True)
class PruneResult:
    """The cut module (a copy), what was done, and the record to do it again."""

    module: nn.Module
    report: PruneReport
    history: PruneHistory


def remembered(
    base: nn.Module,
    done: Cut,
    bound: BoundInputs,
    rewritten: tuple[tuple[str, str], ...],
    report: PruneReport,
) -> PruneResult:
    """Return the result of a cut of `base`, whose module remembers what was done to it."""
    history = PruneHistory(
        bound.specs,
        rewritten,
        tuple(done.history),
        done.heads,
        key_groups=tuple(done.key_groups),
        before=history_of(base),
    )
    remember(done.module, history)
    return PruneResult(done.module, report, history)


def prepared(
    module: nn.Module, bound: BoundInputs, rewrites: Sequence[BlockRewrite]
) -> tuple[nn.Module, tuple[tuple[str, str], ...]]:
    """Return a copy with plain weights and rewritten blocks; and which those are."""
    base = copy_module(module).eval()
    make_weights_plain(base)
    return base, rewrite_blocks(base, rewrites, bound)


def width_changes(
    base: nn.Module, module: nn.Module, why: Callable[[str], str]
) -> tuple[LayerWidth, ...]:
    """Return the widths of all layers before and after; `why` says why a layer kept its own."""
    now = layer_widths(module)
    return tuple(
        LayerWidth(path, before, now[path], "" if now[path] < before else why(path))
        for path, before in layer_widths(base).items()
    )
