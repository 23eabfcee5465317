"""Finds which channels can only be removed together, which can be removed, and why others cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from trtbuild.errors import ModelError
from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.cost import Cost, cost_of
from trtbuild.pytorch.layers import LAYERS, match_layers
from trtbuild.pytorch.prune.attention_blocks import Attention, find_attention
from trtbuild.pytorch.prune.dependency import (
    PruneGroup,
    build_graph,
    describe,
    group_of,
    is_mixer,
    output_layers,
    tracing,
)
from trtbuild.pytorch.prune.key_groups import SHARED_KEYS, KeyGroups, find_key_groups
from trtbuild.pytorch.prune.sizes import StoredSize, find_sizes
from trtbuild.pytorch.prune.widths import width_of
from trtbuild.pytorch.running import run
from trtbuild.pytorch.tracing import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.export import ExportedProgram

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.spec import PruneSpec

__all__ = ["Prospect", "find_stored_sizes", "survey"]

_OUTPUT = "it gives the network's output"
_RECURRENT = "a recurrent layer takes part, whose channels are not followed"


@dataclass(frozen=True)
class Prospect:
    """What can be pruned.

    Attributes:
        groups: every group, with the reason if it keeps its width.
        kept: layer path -> why it must not be the root of a cut.
        attention: the attention blocks.
        key_groups: the attention blocks whose heads share keys.
        sizes: plain numbers of modules that count channels.
        mixes: whether any group that can be pruned changes the values of other channels.
        cost: of the unpruned module.
    """

    groups: tuple[PruneGroup, ...]
    kept: dict[str, str]
    attention: tuple[Attention, ...]
    key_groups: tuple[KeyGroups, ...]
    sizes: tuple[StoredSize, ...]
    mixes: bool
    cost: Cost


def survey(
    module: nn.Module,
    inputs: BoundInputs,
    spec: PruneSpec,
    importance: Callable[[Any], Any] | None,
) -> Prospect:
    """Find all groups of `module`, without cutting.

    Args:
        module: with plain weights.
        inputs: for the trace.
        spec: names layers that keep their width.
        importance: ranks a group; tried on every group, because it fails on some structures. None
            if it needs gradients.

    Raises:
        ModelError: a branch of the module depends on data, or its channels cannot be traced.
        OptionError: a pattern matches no layer.
    """
    run(copy_module(module, share_parameters=True), inputs)
    program = _refuse_branches(module, inputs)
    kept = dict.fromkeys(match_layers(module, spec.ignore, LAYERS), "it is kept by a pattern")
    key_groups = tuple(
        block for block in find_key_groups(module) if not kept.keys() & set(block.layers)
    )
    kept |= dict.fromkeys((p for block in key_groups for p in block.layers[:-1]), SHARED_KEYS)
    paths = {child: path for path, child in module.named_modules()}
    with tracing(module, inputs):
        graph = build_graph(module, inputs)
        kept |= {paths[layer]: _OUTPUT for layer in output_layers(graph)}
        groups = _groups(graph, kept, importance)
        attention = tuple(find_attention(module))
        heads = {module.get_submodule(path) for block in attention for path in block.projections}
        mixes = any(is_mixer(graph, found, heads) for found, group in groups if not group.kept)
    cost = cost_of(program, module, inputs)
    sizes = find_sizes(program, module, attention)
    return Prospect(
        tuple(group for _, group in groups), kept, attention, key_groups, sizes, mixes, cost
    )


def find_stored_sizes(module: nn.Module, inputs: BoundInputs) -> tuple[StoredSize, ...]:
    """Return the plain numbers of modules that count channels, see `trtbuild.pytorch.prune.sizes`.

    Raises:
        ModelError: a branch of the module depends on data.
    """
    return find_sizes(_refuse_branches(module, inputs), module, find_attention(module))


def _refuse_branches(module: nn.Module, inputs: BoundInputs) -> ExportedProgram:
    try:
        return capture(module, inputs)
    except ModelError as error:
        raise ModelError(
            "channels can only be removed where every way through the module is seen; "
            f"a branch that the sample does not take would break. {error}"
        ) from error


def _groups(
    graph: Any, kept: dict[str, str], importance: Callable[[Any], Any] | None
) -> list[tuple[Any, PruneGroup]]:
    """All groups, each once; adds layers that the library cannot trace to `kept`."""
    found: list[tuple[Any, PruneGroup]] = []
    seen: set[str] = set()
    for layer in [m for m in graph.module2node if isinstance(m, LAYERS)]:
        path = str(graph._module2name.get(layer, ""))
        if path in seen:
            continue
        try:
            raw = group_of(graph, layer)
            if importance is not None:
                importance(raw)
        except Exception as error:  # noqa: BLE001 - index mappings of the library fail in many ways
            told = f"Torch-Pruning cannot follow its channels ({type(error).__name__}: {error})"
            kept.setdefault(path, str(error).rstrip(".") if isinstance(error, ModelError) else told)
            found.append((None, PruneGroup(path, width_of(layer), (), kept[path])))
            continue
        group = describe(graph, raw)
        outs = {member.path for member in group.members if member.side == "out"}
        seen |= outs
        if any(isinstance(item.dep.target.module, nn.RNNBase) for item in raw):
            kept[path] = _RECURRENT
        blocker = next((other for other in outs if other in kept), "")
        reason = kept.get(path) or (
            f"it is coupled with '{blocker}': {kept[blocker]}" if blocker else ""
        )
        found.append((raw, replace(group, kept=reason)))
    return found
