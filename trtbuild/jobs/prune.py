"""Removes channels of a PyTorch module, and saves the smaller module for fine-tuning."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError, in_one_tree
from trtbuild.jobs.module_latency import latency_share
from trtbuild.jobs.paths import check_paths
from trtbuild.json_codec import Document
from trtbuild.pytorch.spec import HISTORY_FILE, WEIGHTS_FILE, PruneSpec, with_axes

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.pytorch import LoadedModule
    from trtbuild.pytorch.prune import PruneGroup, PruneReport
    from trtbuild.recipes import PruneRecipe

__all__ = ["ChannelGroups", "PruneOutcome", "channel_groups", "prune"]


@dataclass(frozen=True)
class PruneOutcome(Document):
    """A pruned module.

    Attributes:
        folder: its weights and its history, for ``--weights``.
        pruning: what was removed.
        warnings: warnings from loading the module.
    """

    SCHEMA = "trtbuild.pruning"

    folder: Path
    pruning: PruneReport
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ChannelGroups(Document):
    """The groups of channels that can only be removed together."""

    SCHEMA = "trtbuild.channel_groups"

    groups: tuple[PruneGroup, ...]


@in_one_tree()
def prune(recipe: PruneRecipe) -> PruneOutcome:
    """Remove channels, and save the weights and their history in the recipe's folder.

    Raises:
        OptionError: no option says how much to remove, or an option does not fit the module.
        ModelError: the module cannot be loaded or pruned.
        MissingError: torch or torch-pruning is not installed.
        OutputError: the folder cannot be written.
    """
    inputs = with_axes(recipe.inputs, recipe.dynamic)
    if recipe.prune is None:
        raise OptionError(
            "say how much to remove: --prune 0.5, --prune-macs 0.5 or --prune-masked; or --list-groups to "
            "look first."
        )
    _check_folder(recipe)
    loaded = _loaded(recipe)
    from trtbuild.pytorch.prune import prune_channels, save_pruned

    with contextlib.ExitStack() as stack:
        latency = None
        if recipe.prune.latency is not None:
            timing = latency_share(loaded.module, inputs, recipe.backend)
            latency = stack.enter_context(timing)
        result = prune_channels(loaded.module, inputs, recipe.prune, latency=latency)
    save_pruned(result.module, result.history, recipe.output)
    return PruneOutcome(recipe.output, result.report, tuple(loaded.warnings))


def _check_folder(recipe: PruneRecipe) -> None:
    """Check that the folder can be written, and does not hold the checkpoint that is read."""
    from trtbuild.pytorch import require_torch

    require_torch()
    given, names = recipe.source.weights, (HISTORY_FILE, WEIGHTS_FILE)
    read = [given, *(given / name for name in names)] if given is not None else []
    reads = tuple(("the checkpoint", path) for path in read)
    check_paths(reads, [recipe.output / name for name in names], folder=recipe.output)


@in_one_tree()
def channel_groups(recipe: PruneRecipe) -> ChannelGroups:
    """Return the groups of channels that depend on each other; nothing is removed or written.

    Raises:
        ModelError: the module cannot be loaded.
        MissingError: torch or torch-pruning is not installed.
    """
    inputs = with_axes(recipe.inputs, recipe.dynamic)
    loaded = _loaded(recipe)
    from trtbuild.pytorch.prune import list_groups

    return ChannelGroups(tuple(list_groups(loaded.module, inputs, recipe.prune or PruneSpec())))


def _loaded(recipe: PruneRecipe) -> LoadedModule:
    from trtbuild.pytorch import load_module, require_torch

    require_torch("torch_pruning")
    return load_module(recipe.source)
