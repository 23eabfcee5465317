"""Pruning: masks over weights, and real removal of channels.

sparsity    masks single weights or slices, with zeros that survive fine-tuning; a module beside this package
channels    removes whole coupled groups of channels, and checks the result (Torch-Pruning)
explicit    removes channels that are named, or that are zero
restore     adjusts the remaining weights by least squares on samples, to restore the outputs
regularize  penalties that weaken channels before their removal
history     saves and loads a pruned module without pickle
"""

from __future__ import annotations

from trtbuild.pytorch.masks import (
    SparsityReport,
    is_masked,
    make_masks_permanent,
    mask_globally,
    mask_slices,
    mask_weights,
    sparsity_report,
)
from trtbuild.pytorch.prune.channels import list_groups, prune_channels
from trtbuild.pytorch.prune.dependency import Member, PruneGroup
from trtbuild.pytorch.prune.explicit import prune_indices, zero_channels
from trtbuild.pytorch.prune.history import PruneHistory, history_of, load_pruned, save_pruned
from trtbuild.pytorch.prune.outcome import LayerWidth, PruneReport, PruneResult
from trtbuild.pytorch.prune.regularize import (
    ChannelWeights,
    channel_weights,
    group_lasso,
    growing_penalty,
    growing_strength,
    norm_scale_penalty,
    weakest_channels,
)
from trtbuild.pytorch.prune.restore import restore_outputs
from trtbuild.pytorch.prune.rewrites import BlockRewrite
from trtbuild.pytorch.spec import parse_amount

__all__ = [
    "BlockRewrite",
    "ChannelWeights",
    "LayerWidth",
    "Member",
    "PruneGroup",
    "PruneHistory",
    "PruneReport",
    "PruneResult",
    "SparsityReport",
    "channel_weights",
    "group_lasso",
    "growing_penalty",
    "growing_strength",
    "history_of",
    "is_masked",
    "list_groups",
    "load_pruned",
    "make_masks_permanent",
    "mask_globally",
    "mask_slices",
    "mask_weights",
    "norm_scale_penalty",
    "parse_amount",
    "prune_channels",
    "prune_indices",
    "restore_outputs",
    "save_pruned",
    "sparsity_report",
    "weakest_channels",
    "zero_channels",
]
