"""The module before its channels are removed, and the report afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.pytorch.copies import copy_module, make_weights_plain
from trtbuild.pytorch.prune.history import PruneHistory, history_of, remember
from trtbuild.pytorch.prune.rewrites import rewrite_blocks
from trtbuild.pytorch.prune.widths import layer_widths

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
    """Output channels of one layer.

    Attributes:
        path: module path.
        before, after: number of its output channels.
        kept: why none were removed; empty if some were.
    """

    path: str
    before: int
    after: int
    kept: str = ""


@dataclass(frozen=True)
class PruneReport:
    """What pruning did.

    Attributes:
        asked: the requested ratio, or the one that a budget needs.
        achieved: share of the channels removed, over the layers that could lose some.
        round_to: remaining widths are multiples of this.
        widths: every convolution and linear layer.
        before, after: cost of one sample.
        inexact: whether a norm over channels or attention was cut, so that removing even zero
            channels changes the output a little.
        notes: other sentences for the user.
    """

    asked: float
    achieved: float
    round_to: int
    widths: tuple[LayerWidth, ...]
    before: Cost
    after: Cost
    inexact: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruneResult:
    """The cut module (a copy), the report, and the history that repeats the cut."""

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
    """Return the result of a cut of `base`; the cut module stores its history."""
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
    """Return a copy with plain weights and rewritten blocks, and the list of these blocks."""
    base = copy_module(module).eval()
    make_weights_plain(base)
    return base, rewrite_blocks(base, rewrites, bound)


def width_changes(
    base: nn.Module, module: nn.Module, why: Callable[[str], str]
) -> tuple[LayerWidth, ...]:
    """Return the widths of all layers before and after; `why` gives the reason if a layer kept its width."""
    now = layer_widths(module)
    return tuple(
        LayerWidth(path, before, now[path], "" if now[path] < before else why(path))
        for path, before in layer_widths(base).items()
    )
