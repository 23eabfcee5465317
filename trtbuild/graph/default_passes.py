"""The passes in the order in which one round runs them, with the reason for their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.graph.passes.batch_norm import FuseInnerProductBatchNorm, MergeBNToConvolution
from trtbuild.graph.passes.constant_folding import ConstantFolding
from trtbuild.graph.passes.identity import RemoveDropout, RemoveUnusefulOp
from trtbuild.graph.passes.memory_data import FuseMemoryDataBinaryOp
from trtbuild.graph.passes.orphans import EliminateOrphanedMemoryData
from trtbuild.graph.passes.shape_nodes import ResolveTfShapeN

if TYPE_CHECKING:
    from trtbuild.graph.pass_base import Pass

__all__ = ["shipped_passes"]


def shipped_passes() -> list[Pass]:
    """Make one of each pass that comes with trtbuild, in order."""
    return [
        EliminateOrphanedMemoryData(),  # first: a dead reader would block fusions
        RemoveUnusefulOp(),  # what stands between two operators hides them from each other
        RemoveDropout(),
        FuseMemoryDataBinaryOp(),
        ResolveTfShapeN(),  # makes constants for
        ConstantFolding(),
        MergeBNToConvolution(),
        FuseInnerProductBatchNorm(),
    ]
