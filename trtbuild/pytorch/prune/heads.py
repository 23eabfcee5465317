"""How many heads of each attention block stay, rounded so that all blocks together meet the request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.pytorch.prune.key_groups import SHARED_KEYS
from trtbuild.pytorch.prune.widths import Span, kept_channels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from trtbuild.pytorch.prune.ranking import CutPlan

__all__ = ["head_counts", "heads_left"]


def head_counts(module: nn.Module, plan: CutPlan) -> dict[str, int]:
    """Return path of an attention block -> number of its prunable heads, or of groups that share keys.

    Args:
        module: before any cut.
        plan: the request, and the attention blocks.
    """
    counts = {
        block.path: block.groups(module)
        for block in plan.key_groups
        if plan.kept.get(block.layers[0]) == SHARED_KEYS
    }
    if plan.spec.head_ratio == 0:
        return counts
    shared = {block.path for block in plan.key_groups}
    for block in plan.attention:
        if block.path not in shared and not plan.kept.keys() & set(block.projections):
            counts[block.path] = getattr(module.get_submodule(block.path), block.count)
    return counts


def heads_left(counts: Mapping[str, int], plan: CutPlan, step: int) -> dict[str, int]:
    """Return path of an attention block -> number of heads, or groups of heads, after `step`.

    Args:
        counts: from `head_counts`.
        plan: a block whose layers have their own ratio uses it; others use the ratio of heads, or that of
            channels if there is none.
        step: from 1.
    """
    spec = plan.spec
    layers = {block.path: block.projections for block in plan.attention}
    layers |= {block.path: block.layers for block in plan.key_groups}
    shares = {block.path: block.share for block in plan.key_groups}
    spans = []
    for path, count in counts.items():
        own = next((plan.ratios[one] for one in layers[path] if one in plan.ratios), None)
        ratio = min(own if own is not None else spec.head_ratio or spec.ratio, spec.max_ratio)
        wish = count * (1 - ratio * step / spec.steps)
        least = max(math.ceil(count * (1 - spec.max_ratio) - 1e-9), 1)
        spans.append(Span(count, 1, 1, wish, least, shares.get(path, 1)))
    return dict(zip(counts, kept_channels(spans, 1)))
