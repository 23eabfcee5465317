"""What `trtbuild.pytorch.from_spec` did with a module before the export, for JSON and the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.pytorch.checkpoint import CheckpointReport
    from trtbuild.pytorch.cost import Cost
    from trtbuild.pytorch.prune import PruneReport
    from trtbuild.pytorch.sparsity import NodeSparsity, SparseLayer

__all__ = ["CostChange", "ExportSteps", "MaskShares", "SourceReport"]


@dataclass(frozen=True)
class SourceReport:
    """Where the module comes from.

    Attributes:
        target: ``package.module:factory``, or the name of the module's class.
        arguments: argument of the factory -> its value as Python text.
        checkpoint: what was loaded into it; None if no weights were given.
    """

    target: str
    arguments: Mapping[str, str]
    checkpoint: CheckpointReport | None


@dataclass(frozen=True)
class CostChange:
    """Cost of one sample, of the module as loaded and as exported."""

    loaded: Cost
    exported: Cost


@dataclass(frozen=True)
class MaskShares:
    """Weights that were masked.

    Attributes:
        zero_share: share of zeros in the weights of all layers.
        layers: module path -> share of zeros in its weight.
    """

    zero_share: float
    layers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ExportSteps:
    """What was done with a module before it was exported.

    Attributes:
        source: where the module comes from.
        cost: cost of one sample.
        pruning: the removed channels; None if none were asked for.
        masks: the masked weights; None if none were asked for.
        sparse_layers: layers that got the 2:4 pattern, or why not; None if it was not asked for.
        sparse_nodes: whether the nodes of the exported network have that pattern; None likewise.
    """

    source: SourceReport
    cost: CostChange
    pruning: PruneReport | None = None
    masks: MaskShares | None = None
    sparse_layers: tuple[SparseLayer, ...] | None = None
    sparse_nodes: tuple[NodeSparsity, ...] | None = None
